"""The published presets of the proposal family as detectors: padding, lengths, gradients, recipes. Narrow."""

from copy import deepcopy
from functools import cache

import pytest
import torch

from tal_lib import TalError, models
from tal_lib.data import collate, make_item
from tal_lib.training import Recipe, recipe_for
from tal_lib.training.loop import learning_rate_factor, make_optimizer

WINDOW = {"window": 128, "overlap": 64, "max_duration": 64, "classifier_width": 8}  # holds every recording
MAP = {"base_width": 16, "width": 16, "sampled_width": 16, "map_width": 8, "points": 8}
SMALL = {
    "bmn": WINDOW | MAP,
    "prn": WINDOW | MAP | {"relation_width": 8, "heads": 4, "relation_heads": 2},
    "bsn": WINDOW | {"width": 16, "confidence_width": 8},
    "tcanet": WINDOW | {"generator_preset": "compact", "width": 32, "feed_forward": 16, "points": 8},
}
PRESETS = [(name, preset) for name in SMALL for preset in ("paper", "paper_activitynet")]


@cache
def made(name, preset, dim, classes):
    options = SMALL[name] | ({"proposals": 60} if preset == "paper_activitynet" else {})
    return models.build(name, input_dim=dim, num_classes=classes, preset=preset, **options)


def make(name, preset, small):
    """A model with equal weights for every test; a test may change its own."""
    torch.manual_seed(0)
    return deepcopy(made(name, preset, small.feature_spec.dim, len(small.classes)))


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_one_step_reaches_every_parameter(name, preset, small):
    batch = collate([make_item(small, recording) for recording in small.recordings("train")[:3]])
    model = make(name, preset, small).train()
    losses = model.loss(model.run(batch), batch)
    losses["total"].backward()
    assert torch.isfinite(losses["total"])
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_padding_changes_nothing(name, preset, small):
    model = make(name, preset, small).eval()
    items = [make_item(small, recording) for recording in small.recordings("test")]
    for item, proposals in zip(items, model.propose(collate(items))):
        alone = model.propose(collate([item]))[0]
        assert len(alone) == len(proposals)
        for column in ("start", "end", "score"):
            assert alone[column].sort_values().to_numpy() == pytest.approx(
                proposals[column].sort_values().to_numpy(), abs=2e-3
            )


@pytest.mark.parametrize(("name", "preset"), PRESETS)
@pytest.mark.parametrize("steps", [1, 2, 33])
def test_any_length_runs(name, preset, steps, small):
    item = make_item(small, small.recordings("test")[0])
    short = collate([type(item)(**{**vars(item), "features": item.features[:, :steps]})])
    table = make(name, preset, small).eval().detect(short)[0]
    assert ((table.start >= 0) & (table.end <= item.duration + 1e-4) & (table.start < table.end)).all()


def test_recipes_are_the_published():
    """Adam with weight decay on all weights; the rate drops to a tenth after 7 of 9 epochs."""
    recipe = recipe_for("bmn", "paper_activitynet")
    assert [learning_rate_factor(step, 90, recipe) for step in (0, 69, 70, 89)] == [1, 1, 0.1, 0.1]
    recipe = recipe_for("bsn", "paper")
    factors = [learning_rate_factor(step, 200, recipe) for step in (0, 69, 70, 140)]
    assert factors == pytest.approx([1, 1, 0.1, 0.01])
    model = models.build("bsn", input_dim=4, num_classes=2)
    optimizer = make_optimizer(model, recipe)
    assert isinstance(optimizer, torch.optim.Adam) and not isinstance(optimizer, torch.optim.AdamW)
    decays = {
        id(weight): group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]
    }
    assert all(decays[id(weight)] == 1e-4 for weight in model.parameters())


@pytest.mark.parametrize("options", [{"schedule": "step"}, {"drops": (0.5,)}])
def test_a_step_schedule_needs_its_steps(options):
    with pytest.raises(TalError, match="drops: . with schedule"):
        Recipe(**options)
