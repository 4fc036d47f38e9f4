"""Options of a recipe with which training does what the authors of the pyramids do."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib import TalError, models
from tal_lib.data.batches import Item, crop, within_features
from tal_lib.models.parts import registry
from tal_lib.training import Recipe, fit, recipe_for, seed_everything
from tal_lib.training.loop import learning_rate_factor, steps_per_epoch
from tal_lib.training.state import Average


def item(steps=100, segments=((10, 30),), stride_s=1.0, window_s=4.0):
    """A recording whose features are the numbers of its steps."""
    return Item(
        recording="a",
        features=torch.arange(steps, dtype=torch.float32)[None],
        duration=steps * stride_s,
        stride_s=stride_s,
        window_s=window_s,
        classes=("x",),
        segments=torch.tensor(segments, dtype=torch.float32).reshape(-1, 2),
        labels=torch.zeros(len(segments), dtype=torch.long),
    )


# read off their settings thumos_i3d.yaml and anet_tsp.yaml
SETTINGS = {
    ("actionformer", "paper"): (1e-4, 0.05, 35, 5, 2, 1.0, 2304, 0.0, "window"),
    ("temporalmaxer", "paper"): (1e-4, 0.05, 65, 5, 2, 1.0, 2304, 0.0, "window"),
    ("tridet", "paper"): (1e-4, 0.025, 40, 20, 2, 1.0, 2304, 5e-4, "edge"),
    ("actionformer", "paper_activitynet"): (1e-3, 0.05, 15, 5, 16, 1.0, 192, 0.0, "window"),
    ("tridet", "paper_activitynet"): (1e-3, 0.04, 15, 10, 16, 0.4, 768, 0.5, "edge"),
}


@pytest.mark.parametrize(("name", "preset"), SETTINGS)
def test_recipes_are_their_settings(name, preset):
    recipe = recipe_for(name, preset)
    numbers = (
        recipe.learning_rate,
        recipe.weight_decay,
        recipe.epochs,
        round(recipe.warmup * recipe.epochs, 9),
        recipe.batch_size,
        recipe.clip_norm,
        recipe.max_steps,
        recipe.feature_noise,
        recipe.crop_reach,
    )
    assert numbers == SETTINGS[name, preset]
    assert (recipe.crop_tries, recipe.crop_length, recipe.drop_last, recipe.ema_ramp) == (
        200,
        "steps",
        True,
        False,
    )
    assert recipe.within_features == (preset == "paper_activitynet")


def test_compact_recipes_are_as_they_were():
    ours = recipe_for("actionformer", "compact")
    assert ours == Recipe()
    assert (ours.ema_ramp, ours.warmup_from_zero, ours.drop_last, ours.crop_tries) == (True, False, False, 20)
    assert (ours.crop_length, ours.crop_reach, ours.min_learning_rate) == ("fraction", "step", 0.0)


def their_rate(step, warm, total, base, lowest):
    """The schedule of their code, a step from the one before, as its `get_lr` is written."""
    rate = 0.0
    for at in range(1, step + 1):
        if at < warm:
            rate += base / (warm - 1)
        elif at == warm:
            rate = base
        else:
            part, before = ((k - warm) / (total - warm) for k in (at, at - 1))
            rate = lowest + (rate - lowest) * (1 + math.cos(math.pi * part)) / (
                1 + math.cos(math.pi * before)
            )
    return rate


@pytest.mark.parametrize("preset", ["paper", "paper_activitynet"])
def test_the_learning_rate_of_every_step(preset):
    recipe = recipe_for("tridet", preset)
    total = 3 * recipe.epochs
    warm = round(recipe.warmup * total)
    for step in range(total):
        rate = recipe.learning_rate * learning_rate_factor(step, total, recipe)
        expected = their_rate(step, warm, total, recipe.learning_rate, recipe.min_learning_rate)
        assert rate == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_a_warm_up_of_one_step_from_zero():
    recipe = Recipe(warmup=0.01, warmup_from_zero=True)
    assert [learning_rate_factor(step, 100, recipe) for step in (0, 1)] == [0.0, 1.0]


def test_the_lowest_rate_is_not_above_the_highest():
    with pytest.raises(TalError, match="min_learning_rate: 0.1 is above learning_rate 0.01"):
        Recipe(learning_rate=0.01, min_learning_rate=0.1)


def test_an_average_without_ramp_has_the_full_decay_at_once():
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = Average(model, 0.9, ramp=False)
    model.weight.data.fill_(1.0)
    for step in range(3):
        average.update(step)
    assert float(average.state["weight"]) == pytest.approx(1 - 0.9**3)


@pytest.mark.parametrize(
    ("recordings", "drop_last", "steps"), [(7, False, 4), (7, True, 3), (8, True, 4), (1, True, 1)]
)
def test_the_rest_of_an_epoch(recordings, drop_last, steps):
    assert steps_per_epoch(recordings, Recipe(batch_size=2, drop_last=drop_last)) == steps


# crops


@pytest.mark.parametrize(
    ("reach", "ends"), [("step", (-0.5, 9.5)), ("window", (-2.0, 12.0)), ("edge", (0.0, 10.0))]
)
def test_how_far_segments_reach_beyond_a_crop(reach, ends):
    """A segment longer than the crop; the window of a step is 4 steps."""
    whole = item(segments=((-50, 150),))
    got = crop(whole, 10, torch.Generator().manual_seed(0), keep=0.0, length="steps", reach=reach)
    assert got.segments.tolist() == [list(ends)] and got.features.shape == (1, 10)


def test_lengths_in_steps():
    generator = torch.Generator().manual_seed(0)
    lengths = lambda steps: [
        crop(item(steps), 100, generator, length="steps").features.shape[1] for _ in range(400)
    ]
    assert set(lengths(105)) == {100}  # longer recordings are never cut below
    short = lengths(20)
    assert set(short) == {18, 19, 20}
    assert min(short.count(size) for size in (18, 19, 20)) > 100  # each about as often


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    steps=st.integers(1, 60),
    most=st.integers(1, 60),
    reach=st.sampled_from(["step", "window", "edge"]),
)
def test_crops_are_pieces_that_keep_half_of_their_segments(seed, steps, most, reach):
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(4, generator=generator) * steps
    segments = torch.stack([start, start + 1 + 10 * torch.rand(4, generator=generator)], 1)
    whole = item(steps, segments.tolist())
    got = crop(whole, most, generator, length="steps", reach=reach, tries=200)
    size = got.features.shape[1]
    first = int(got.features[0, 0])
    assert size <= most and got.features[0].tolist() == list(range(first, first + size))
    if size < steps:
        margin = {"step": 0.5, "window": 2.0, "edge": 0.0}[reach]
        low, high = first - margin, first + size + (-0.5 if reach == "step" else margin)
        kept = [
            [max(s, low) - first, min(e, high) - first]
            for s, e in segments.tolist()
            if min(e, high) - max(s, low) >= 0.5 * (e - s)
        ]
        torch.testing.assert_close(got.segments, torch.tensor(kept).reshape(-1, 2), atol=1e-4, rtol=0)


def test_more_tries_find_a_rare_segment():
    whole = item(2000, ((1000, 1003),))
    held = lambda tries: sum(
        len(crop(whole, 50, torch.Generator().manual_seed(seed), tries=tries).labels) for seed in range(40)
    )
    assert held(200) > 30 > held(20)


def test_segments_end_with_the_features():
    """The features end at 22 steps: 20, and half a window."""
    whole = item(20, ((5, 10), (18, 25), (15, 40), (30, 35)))
    got = within_features(whole)
    assert got.segments.tolist() == [[5, 10], [18, 22]] and len(got.labels) == 2


# in a training


def trained(data, recipe, **more):
    seed_everything(0)
    shape = {"input_dim": data.feature_spec.dim, "num_classes": len(data.classes)}
    model = models.build("local_global", **shape, width=16, head_width=16, **more)
    return fit(model, data, data.recordings("train")[:3], recipe, 0)


BASE = Recipe(epochs=2, min_steps=0, max_steps=24)


@pytest.fixture(scope="module")
def usual(small):
    return trained(small, BASE).model.state_dict()


@pytest.mark.parametrize(
    "option",
    [
        {"warmup_from_zero": True},
        {"min_learning_rate": 5e-4},
        {"drop_last": True},
        {"ema_ramp": False},
        {"crop_length": "steps", "max_steps": 200},
        {"crop_reach": "edge"},
        {"crop_reach": "window"},
        {"feature_dropout": 0.5},
    ],
    ids=str,
)
def test_every_option_changes_the_training(small, usual, option):
    base = trained(small, replace(BASE, max_steps=200)).model.state_dict() if "max_steps" in option else usual
    weights = trained(small, replace(BASE, **option)).model.state_dict()
    assert any(not torch.equal(weights[name], value) for name, value in base.items())


def test_feature_dropout_zeroes_columns_of_a_crop(small, monkeypatch):
    batches = []
    kind = registry.class_of("local_global")
    run = kind.run
    monkeypatch.setattr(kind, "run", lambda self, batch: batches.append(batch) or run(self, batch))
    trained(small, replace(BASE, epochs=1, feature_dropout=0.2, batch_size=1))
    for batch in batches:
        whole = batch.features[0].abs().amax(1) == 0
        assert 0.05 < whole.float().mean() < 0.4  # of 96 columns
