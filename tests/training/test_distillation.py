import math
from functools import partial

import pytest
import torch

from tal_lib import TalError, models
from tal_lib.data import collate, make_item
from tal_lib.training import Distillation, Distilled, Recipe, fit, load_model, loop
from tal_lib.training.distillation import score_loss


def make(small, name="gaf", **options):
    torch.manual_seed(0)
    return models.build(name, input_dim=small.feature_spec.dim, num_classes=len(small.classes), **options)


def test_score_loss_by_hand():
    p, wanted = torch.tensor([0.5, 0.9]), torch.tensor([0.5, 0.5])
    assert float(score_loss(p, wanted, 2.0)) == pytest.approx(
        0.16 * -0.5 * (math.log(0.9) + math.log(0.1)), rel=1e-4
    )


def test_a_twin_of_the_teacher_has_nothing_to_learn_from_it(small):
    pair = Distilled(make(small).eval(), make(small), Distillation())
    batch = collate([make_item(small, small.recordings("train")[0])])
    losses = pair.loss(pair.run(batch), batch)
    assert float(losses["score"]) == pytest.approx(0, abs=1e-5) and float(
        losses["location"]
    ) == pytest.approx(0, abs=1e-4)
    assert float(losses["feature"]) > 0.01  # the adapter is new


@pytest.mark.parametrize(
    "student, teacher", [("gaf", "gaf"), ("local_global", "actionformer"), ("actionformer", "tridet")]
)
def test_the_student_learns_the_teacher_does_not(student, teacher, small, tmp_path):
    teaching = make(small, teacher, width=64, head_width=64)
    before = {name: value.clone() for name, value in teaching.state_dict().items()}
    student_model = make(small, student, width=32, head_width=32)
    pair = Distilled(student_model, teaching, Distillation())
    assert not any(name.startswith("teacher") for name in pair.state_dict())
    result = fit(pair, small, small.recordings("train"), Recipe(epochs=6, min_steps=0), 0, tmp_path)
    assert result.history.feature.iloc[-1] < 0.9 * result.history.feature.iloc[0]
    assert all(torch.equal(value, before[name]) for name, value in teaching.state_dict().items())
    assert result.model is student_model and not teaching.training
    kept = load_model(tmp_path / "model.pt")  # the student alone
    assert set(kept.model.state_dict()) == set(student_model.state_dict())
    assert all(
        torch.equal(value, student_model.state_dict()[name])
        for name, value in kept.model.state_dict().items()
    )


def test_a_taught_student_answers_like_its_teacher(small):
    build = partial(make, small, "temporalmaxer")
    teacher = fit(build(), small, small.recordings("train"), Recipe(epochs=10, min_steps=0), 0).model
    batch = collate([make_item(small, recording) for recording in small.recordings("test")])
    score = lambda model: model.probabilities(model.run(batch))[model.level_mask(batch.mask)].detach()
    apart = []
    for weight in (0.0, 20.0):
        pair = Distilled(build(width=64, head_width=64), teacher, Distillation(class_weight=weight))
        student = fit(pair, small, small.recordings("train"), Recipe(epochs=10, min_steps=0), 0).model
        apart.append(float((score(student) - score(teacher)).square().mean()))
    assert apart[1] < 0.8 * apart[0]


def test_a_distillation_is_not_taken_up_with_another_teacher(small, tmp_path, monkeypatch, capsys):
    """Two teachers of one architecture differ in their weights alone."""
    clock = iter(range(0, 10**9, 100))
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))  # so that every epoch is saved
    recipe, narrow = Recipe(epochs=2, min_steps=0), {"width": 32, "head_width": 32}

    def teach(shift, out=None, on_epoch=None):
        teacher = make(small, "actionformer", **narrow)
        next(teacher.parameters()).data += shift
        pair = Distilled(make(small, "actionformer", **narrow), teacher, Distillation())
        return fit(pair, small, small.recordings("train")[:4], recipe, 0, out, on_epoch=on_epoch)

    def stop(epoch, seconds, model):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach(0.0, tmp_path, stop)
    other, afresh = teach(1.0, tmp_path), teach(1.0)
    assert "other model or teacher; training starts afresh" in capsys.readouterr().err
    weights = zip(other.model.state_dict().values(), afresh.model.state_dict().values())
    assert all(torch.equal(a, b) for a, b in weights)


def test_only_like_pyramids_can_be_paired(small):
    with pytest.raises(TalError, match="bilstm is not a pyramid detector"):
        Distilled(make(small), make(small, "bilstm"), Distillation())
    with pytest.raises(TalError, match="different levels"):
        Distilled(make(small), make(small, ranges=((0, 4), (4, 10_000))), Distillation())
