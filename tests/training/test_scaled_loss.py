"""The scaled loss of float16. Its arithmetic also runs on a CPU, where a recipe may not ask for it."""

from functools import partial

import pytest
import torch

from tal_lib import TalError, models
from tal_lib.data.batches import collate, crop, make_item
from tal_lib.training import Recipe, fit, loop, seed_everything
from tal_lib.training.loop import make_optimizer, make_scaler, training_step

PLAN = Recipe(precision="float16", epochs=6, min_steps=0, max_steps=32, clip_norm=1e-2)


@pytest.fixture
def allowed(monkeypatch):
    """Lets a recipe ask for float16 on the CPU. Its value is a list of the scalers that trainings made."""
    scalers = []

    def scaler(recipe, device, init_scale=2.0**8):
        made = torch.amp.GradScaler(
            "cpu", init_scale, growth_interval=4, enabled=recipe.precision == "float16"
        )
        scalers.append(made)
        return made

    monkeypatch.setattr(loop, "chosen_precision", lambda asked, device: asked)
    monkeypatch.setattr(loop, "make_scaler", scaler)
    return scalers


def build(data):
    """A small model: float16 is slow on a CPU."""
    seed_everything(0)
    shape = {"input_dim": data.feature_spec.dim, "num_classes": len(data.classes)}
    return models.build("temporalmaxer", **shape, width=16, head_width=16).train()


def start(data, scale=2.0**16, optimizer=None):
    """A model, its scaler, and a function that makes a step on one short batch."""
    model = build(data)
    items = [make_item(data, name) for name in data.recordings("train")[:2]]
    batch = collate([crop(item, 32, torch.Generator().manual_seed(0)) for item in items])
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    optimizer = (optimizer or partial(make_optimizer, recipe=PLAN))(model)
    return model, scaler, lambda: training_step(model, batch, optimizer, PLAN, scaler)


def weights(model):
    return torch.cat([value.detach().flatten() for value in model.parameters()]).clone()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_only_float16_has_a_scale(precision):
    assert make_scaler(Recipe(precision=precision), "cpu").is_enabled() == (precision == "float16")


def test_gradients_that_overflow_cost_a_step_and_half_of_the_scale(small):
    model, scaler, step = start(small, scale=2.0**120)
    before, losses = weights(model), step()
    assert torch.equal(weights(model), before) and scaler.get_scale() == 2.0**119
    assert 0 < float(losses["total"].detach()) < 1e4  # the loss itself is not scaled
    scaler.update(new_scale=2.0**10)
    step()
    assert not torch.equal(weights(model), before) and scaler.get_scale() == 2.0**10


def test_gradients_that_are_never_finite_end_the_training(small):
    model, scaler, step = start(small, scale=1.5 * loop.LEAST_SCALE)
    next(model.parameters()).register_hook(lambda grad: grad * torch.nan)
    before = weights(model)
    with pytest.raises(TalError, match="not finite at any scale.*precision bfloat16 or float32"):
        step()
    assert torch.equal(weights(model), before)


def test_a_loss_that_is_not_finite_names_the_range_of_float16(small):
    model, _, step = start(small)
    next(model.parameters()).data.fill_(torch.inf)
    with pytest.raises(TalError, match="the loss became .*float16 overflows at 65,504"):
        step()


def test_the_norm_is_clipped_of_the_true_gradients(small):
    """With plain gradient descent an update is as long as the clipped norm, whatever the scale."""
    lengths = []
    for scale in (1.0, 2.0**8):
        model, _, step = start(small, scale, lambda model: torch.optim.SGD(model.parameters(), lr=1.0))
        before = weights(model)
        step()
        lengths.append(float((weights(model) - before).norm()))
    assert lengths == pytest.approx([PLAN.clip_norm] * 2, rel=1e-2)


def test_the_scale_is_saved_and_restored(small, tmp_path, allowed, monkeypatch):
    clock = iter(range(0, 10**9, 100))
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))  # every epoch is saved

    def train(out=None, stop=0):
        def on_epoch(epoch, seconds, model):
            if epoch == stop:
                raise KeyboardInterrupt

        recordings = small.recordings("train")[:4]
        return fit(build(small), small, recordings, PLAN, 0, out, device="cpu", on_epoch=on_epoch)

    whole = train()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop=4)
    resumed = train(tmp_path)
    scales = [scaler.state_dict() for scaler in allowed]
    assert scales[0] == scales[2] and scales[0]["scale"] == 2.0**11  # 12 steps, doubled every fourth
    same = partial(zip, whole.model.state_dict().values())
    assert all(torch.equal(*pair) for pair in same(resumed.model.state_dict().values()))
