import copy
import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tal_lib import TalError, models
from tal_lib.evaluation import mean_average_precision
from tal_lib.models.parts import registry
from tal_lib.training import Recipe, detect_all, fit, load_model, loop, recipe_for, seed_everything
from tal_lib.training.loop import learning_rate_factor, make_optimizer, parameter_groups
from tal_lib.training.state import Average, TrainingCode, random_states, restore_random_states

QUICK = Recipe(epochs=3, min_steps=0)
SHORT = replace(QUICK, epochs=2)


def train(data, recordings, recipe=QUICK, out=None, seed=0, **more):
    seed_everything(seed)
    model = models.build(
        "local_global",
        input_dim=data.feature_spec.dim,
        num_classes=len(data.classes),
        width=32,
        head_width=32,
    )
    return fit(model, data, recordings, recipe, seed, out, **more)


def same(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(a.model.state_dict().values(), b.model.state_dict().values())
    )


def test_same_seed_same_weights(small):
    recordings = small.recordings("train")
    first, again, other = (train(small, recordings, seed=seed) for seed in (0, 0, 1))
    assert same(first, again) and not same(first, other)
    assert first.history.drop(columns="seconds").equals(again.history.drop(columns="seconds"))


@pytest.fixture
def interrupted(monkeypatch):
    """Trains with `train_it(**more)` into a folder and stops after some epochs; every epoch is saved."""
    clock = iter(range(0, 10**9, 100))
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))

    def stop_after(epochs, train_it):
        def stop(epoch, seconds, model):
            if epoch == epochs + 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_it(on_epoch=stop)

    return stop_after


def test_an_interrupted_run_ends_the_same(small, tmp_path, interrupted, capsys):
    recordings = small.recordings("train")[:4]
    whole = train(small, recordings)
    interrupted(2, partial(train, small, recordings, out=tmp_path))
    assert (tmp_path / "training.pt").is_file() and not (tmp_path / "model.pt").exists()
    epochs = []
    resumed = train(
        small, recordings, out=tmp_path, on_epoch=lambda epoch, seconds, model: epochs.append(epoch)
    )
    assert same(whole, resumed) and len(resumed.history) == 3 and epochs == [3]
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["history.csv", "model.pt"]
    assert "afresh" not in capsys.readouterr().err


def draw_from_all(self, x, mask=None):
    """A forward pass that adds noise of every generator: what is not restored is seen in the weights."""
    noise = random.random() + np.random.rand() + float(torch.rand(()))
    return self.plain_forward(x * (1 + 0.1 * noise), mask)


def test_all_random_generators_are_restored(small, tmp_path, interrupted, monkeypatch):
    kind = registry.class_of("bilstm")
    monkeypatch.setattr(kind, "plain_forward", kind.forward, raising=False)
    monkeypatch.setattr(kind, "forward", draw_from_all)

    def run(**more):
        seed_everything(0)
        model = models.build("bilstm", input_dim=small.feature_spec.dim, num_classes=len(small.classes))
        return fit(model, small, small.recordings("train")[:4], QUICK, 0, **more)

    whole = run()
    interrupted(2, partial(run, out_dir=tmp_path))
    resumed = run(out_dir=tmp_path)
    assert same(whole, resumed)
    assert resumed.history.drop(columns="seconds").equals(whole.history.drop(columns="seconds"))


def test_generators_of_all_cuda_devices_are_saved_and_restored(monkeypatch):
    """Without a GPU: what is asked of torch.cuda."""
    devices, restored = [torch.tensor([1, 2], dtype=torch.uint8), torch.tensor([3], dtype=torch.uint8)], []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: devices)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", restored.extend)
    states = random_states()
    drawn = random.random(), np.random.rand(), float(torch.rand(()))
    restore_random_states(states)
    assert restored == devices
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == drawn
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # fewer devices than before
    restored.clear()
    restore_random_states(states)
    assert restored == devices[:1]


OTHER = {
    "recipe": {"recipe": replace(SHORT, weight_decay=0.1)},
    "seed": {"seed": 1},
    "recordings": {"recordings": slice(1, None)},
    "data": {"data": "data_hash"},
    "initial weights": {"weights": 1.0},
    "code": {"code": "x = 1"},
    "model or teacher": {"width": 16},
}


@pytest.mark.parametrize("what", OTHER)
def test_a_training_of_anything_else_is_not_taken_up(small, tmp_path, interrupted, monkeypatch, capsys, what):
    def run(recipe=SHORT, seed=0, recordings=slice(None), weights=None, width=32, out=tmp_path, **more):
        seed_everything(0)
        shape = {"input_dim": small.feature_spec.dim, "num_classes": len(small.classes)}
        model = models.build("local_global", **shape, width=width, head_width=32)
        if weights:
            next(model.parameters()).data += weights
        return fit(model, small, small.recordings("train")[:4][recordings], recipe, seed, out, **more)

    interrupted(1, run)
    other = dict(OTHER[what])
    if what == "data":
        monkeypatch.setattr(small, "data_hash", other.pop("data"))
    if what == "code":
        monkeypatch.setattr(loop.TrainingCode, "digest", other.pop("code"))
    afresh = run(**other)
    assert len(afresh.history) == 2 and same(afresh, run(**other, out=None))
    assert what in capsys.readouterr().err


def test_the_code_that_trains_counts_and_its_comments_do_not(tmp_path):
    file = tmp_path / "own.py"
    digests = []
    for text in ("x = 1", "x = 1  # one\n", '"""Doc."""\nx = (1)', "x = 2"):
        file.write_text(text)
        digests.append(TrainingCode([file]).digest)
    assert digests[0] == digests[1] == digests[2] != digests[3]


def test_saved_model_detects_the_same(small, tmp_path):
    result = train(small, small.recordings("train"), out=tmp_path)
    trained = load_model(result.checkpoint)
    recordings = small.recordings("test")
    assert detect_all(trained.model, small, recordings).equals(detect_all(result.model, small, recordings))
    assert trained.classes == small.classes and trained.feature_spec == small.feature_spec


def test_learning_beats_chance_by_far(small):
    result = train(small, small.recordings("train"), Recipe(epochs=1, min_steps=200))
    truth = small.annotations("train")
    detections = detect_all(result.model, small, small.recordings("train"))
    assert mean_average_precision(truth, detections, small.tious).mean() > 0.3  # chance: below 0.01


def test_bfloat16_training_goes_the_same_way(small):
    runs = {
        precision: train(small, small.recordings("train"), replace(QUICK, precision=precision)).history
        for precision in ("float32", "bfloat16")
    }
    assert not runs["bfloat16"].total.equals(runs["float32"].total)
    assert runs["bfloat16"].total.to_numpy() == pytest.approx(runs["float32"].total.to_numpy(), rel=0.05)


def test_steps_are_the_longer_of_epochs_and_min_steps(small):
    assert train(small, small.recordings("train")[:3], Recipe(epochs=2, min_steps=7)).steps == 8


def test_one_stream(small):
    seed_everything(0)
    model = models.build("bilstm", input_dim=48, num_classes=len(small.classes))
    fit(model, small, small.recordings("train")[:2], QUICK, 0, stream="flow")
    assert set(detect_all(model, small, small.recordings("test"), stream="flow").columns) >= {"score"}
    with pytest.raises(TalError, match="96 columns"):
        detect_all(model, small, small.recordings("test"))


def test_what_cannot_be_trained_on_says_so(small, tiny):
    with pytest.raises(TalError, match="no training recordings"):
        train(small, [])
    with pytest.raises(TalError, match="annotated segment"):
        train(tiny([("a", 1, 2, "x")]), ["b"])
    broken = Recipe(epochs=1, min_steps=0, learning_rate=1e30, clip_norm=0)
    with pytest.raises(TalError, match="loss became.*recordings|recordings.*loss became"):
        train(small, small.recordings("train"), broken)


def test_recipes():
    assert recipe_for("actionformer", "paper").learning_rate == 1e-4
    assert recipe_for("actionformer", "compact", epochs=3).epochs == 3
    with pytest.raises(TalError, match="unknown option 'epoch'"):
        recipe_for("actionformer", epoch=3)
    with pytest.raises(TalError):
        Recipe(optimizer="sgdd")


def test_schedule_warms_up_and_ends_at_zero():
    recipe = Recipe(warmup=0.1)
    factors = [learning_rate_factor(step, 100, recipe) for step in range(101)]
    assert (
        factors[0] == pytest.approx(0.1)
        and max(factors) == factors[9] == 1.0
        and factors[100] == pytest.approx(0)
    )
    assert factors[55] == pytest.approx(0.5, abs=0.02)


def test_every_parameter_is_in_one_group():
    model = models.build("actionformer", input_dim=8, num_classes=2)
    groups = parameter_groups(model, Recipe(weight_decay=0.05))
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    decayed = {id(parameter) for parameter in groups[0]["params"]}
    assert not any(
        id(p) in decayed
        for name, p in model.named_parameters()
        if "norm" in name or "scale" in name or "bias" in name
    )


def test_slow_modules_have_a_rate_of_their_own():
    model = models.build("tadtr", input_dim=8, num_classes=2)
    recipe = recipe_for("tadtr", "paper")
    groups = parameter_groups(model, recipe)
    rates = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    assert len(rates) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        slow = name.startswith("reference.") or ".offsets." in name
        assert rates[id(parameter)] == pytest.approx((2e-5 if slow else 2e-4, 1e-4)), name
    with pytest.raises(TalError, match="unknown module 'offset'.*Did you mean offsets"):
        parameter_groups(model, replace(recipe, slow=("offset",)))


def test_a_step_schedule_drops_where_it_says():
    recipe = Recipe(schedule="step", drops=(0.5, 0.75), warmup=0.0)
    factors = [learning_rate_factor(step, 16, recipe) for step in (0, 7, 8, 11, 12, 15)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    # TadTR: the last two of sixteen epochs
    tadtr = recipe_for("tadtr", "paper")
    assert [learning_rate_factor(epoch, 16, tadtr) for epoch in (13, 14)] == pytest.approx([1, 0.1])
    for wrong in ({"schedule": "step"}, {"drops": (0.5,)}):
        with pytest.raises(TalError, match="drops: .* with schedule"):
            Recipe(**wrong)


def test_an_epoch_has_the_crops_of_the_recipe(small):
    recordings = small.recordings("train")[:3]
    result = train(small, recordings, replace(QUICK, crops=5, batch_size=2, epochs=2, min_steps=0))
    assert result.steps == 2 * 8  # 15 crops in pairs


def test_the_result_has_the_averaged_weights(small):
    recordings, averaged = small.recordings("train"), {}
    result = train(
        small,
        recordings,
        on_epoch=lambda epoch, seconds, model: averaged.update(copy.deepcopy(model.state_dict())),
    )
    weights = result.model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in averaged.items())
    assert not same(result, train(small, recordings, replace(QUICK, ema=0.0)))


@pytest.mark.parametrize("name", ["local_global", "actionformer", "action_mamba", "text_pyramid", "tadtr"])
def test_weight_decay_shrinks_matrices_alone(name):
    """Without gradients an AdamW step only decays: matrices and kernels, not biases, norms and scales."""
    model = models.build(name, input_dim=8, num_classes=2)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.data.add_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    make_optimizer(model, Recipe(learning_rate=0.1, weight_decay=0.5)).step()
    modules = dict(model.named_modules())
    kinds = set()
    for key, parameter in model.named_parameters():
        owner, _, own_name = key.rpartition(".")
        norm = isinstance(modules[owner], torch.nn.LayerNorm | torch.nn.GroupNorm)
        plain = norm or own_name.startswith("bias") or parameter.ndim < 2
        kinds.add(plain)
        torch.testing.assert_close(parameter.detach(), (before[key] + 1) * (1.0 if plain else 0.95))
    assert kinds == {True, False}


@pytest.fixture(scope="module")
def usual(small):
    """A short training with the options as they are."""
    return train(small, small.recordings("train")[:4])


@pytest.mark.parametrize(
    "option",
    [
        {"shrink": (0.3, 0.3)},
        {"max_steps": 16},
        {"clip_norm": 1e-3},
        {"feature_noise": 0.5},
        {"optimizer": "adam"},
        {"weight_decay": 0.0},
        {"schedule": "constant"},
        {"schedule": "step", "drops": (0.5,)},
        {"decayed": "all"},
        {"slow": ("embedding",)},
        {"crops": 2},
        {"warmup": 0.0},
        {"ema": 0.1},
        {"exchange": 1.0},
        {"batch_size": 4},
    ],
    ids=lambda option: next(iter(option)),
)
def test_every_option_of_a_recipe_changes_the_training(small, usual, option):
    assert not same(train(small, small.recordings("train")[:4], replace(QUICK, **option)), usual)


@pytest.mark.parametrize(("step", "share"), [(0, 0.1), (8, 0.5), (100_000, 0.999)])
def test_the_average_follows_closely_at_first(step, share):
    """Its decay is (1 + step) / (10 + step) until that reaches the recipe's."""
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = Average(model, 0.999)
    model.weight.data.fill_(1.0)
    average.update(step)
    assert float(average.state["weight"]) == pytest.approx(1 - share, abs=1e-6)
