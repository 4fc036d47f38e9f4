"""What holds for every model; a new one is tested by existing."""

import pytest
import torch

from tal_lib import TalError, models
from tal_lib.data import collate, make_item
from tal_lib.training import Recipe, fit, seed_everything

NAMES = models.names()


def make(name, benchmark, **options):
    seed_everything(0)
    return models.build(
        name, input_dim=benchmark.feature_spec.dim, num_classes=len(benchmark.classes), **options
    )


@pytest.fixture(scope="module")
def batch(small):
    return collate([make_item(small, recording) for recording in small.recordings("train")[:3]])


@pytest.mark.parametrize("name", NAMES)
def test_one_step_reaches_every_parameter(name, small, batch):
    model = make(name, small).train()
    losses = model.loss(model.run(batch), batch)
    losses["total"].backward()
    assert torch.isfinite(losses["total"])
    unreached = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert not unreached
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_training_lowers_the_loss(name, small):
    """On one batch, whole and always the same, so that few steps tell: of the two shortest recordings."""
    model = make(name, small)
    recipe = Recipe(epochs=16, min_steps=0, shrink=(1.0, 1.0))
    shortest = sorted(small.recordings("train"), key=small.steps)[:2]
    result = fit(model, small, shortest, recipe, 0)
    assert (
        result.history.total.iloc[-1] < 0.8 * result.history.total.max()
    )  # the norm of the loss falls first
    assert result.steps == 16 and not model.training


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing(name, small):
    """A padded batch gives each recording what it gets alone: the shortest with the longest."""
    model = make(name, small).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # untrained weights hide mistakes: make every path count
            parameter.add_(0.05 * torch.randn_like(parameter))
    by_length = sorted(small.recordings("train"), key=small.steps)
    items = [make_item(small, recording) for recording in (by_length[0], by_length[-1])]
    assert items[0].features.shape[1] < 0.9 * items[1].features.shape[1]
    batched = model.detect(collate(items))
    for item, detections in zip(items, batched):
        alone = model.detect(collate([item]))[0]
        assert len(alone) == len(detections)
        for column in ("start", "end", "score"):
            assert alone[column].sort_values().to_numpy() == pytest.approx(
                detections[column].sort_values().to_numpy(), abs=2e-3
            )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 33])
def test_any_length_runs(name, steps, small):
    model = make(name, small).eval()
    item = make_item(small, small.recordings("test")[0])
    short = collate([type(item)(**{**vars(item), "features": item.features[:, :steps]})])
    table = model.detect(short)[0]
    assert list(table.columns) == ["recording", "start", "end", "label", "score"]
    assert ((table.start >= 0) & (table.end <= item.duration + 1e-4) & (table.start < table.end)).all()
    assert table.score.is_monotonic_decreasing and set(table.label) <= set(small.classes)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_detects(name, small):
    model = make(name, small).eval()
    batch = collate([make_item(small, small.recordings("test")[0])])
    table = model.to(torch.bfloat16).detect(batch)[0]
    assert (
        table.score.between(0, 20).all()
        and ((table.start >= 0) & (table.end <= float(batch.durations[0]) + 1e-3)).all()
    )


@pytest.mark.parametrize("name", NAMES)
def test_both_presets_build_and_options_are_named(name):
    for preset in ("compact", "paper"):
        model = models.build(name, input_dim=32, num_classes=3, preset=preset)
        assert model.spec == {
            "name": name,
            "preset": preset,
            "input_dim": 32,
            "num_classes": 3,
            "overrides": {},
        }
    with pytest.raises(TalError, match="unknown option 'colour'"):
        models.build(name, input_dim=32, num_classes=3, colour=1)


def test_unknown_names_list_the_known():
    with pytest.raises(TalError, match="actionformer"):
        models.build("actionfromer", input_dim=1, num_classes=1)
    with pytest.raises(TalError, match="compact"):
        models.build("actionformer", input_dim=1, num_classes=1, preset="tiny")
    with pytest.raises(TalError, match="takes 32"):
        model = models.build("bilstm", input_dim=32, num_classes=3)
        batch = torch.zeros(1, 8, 5)
        from tal_lib.data import Batch

        model.run(
            Batch(
                recordings=("r",),
                features=batch,
                mask=torch.ones(1, 5, dtype=torch.bool),
                durations=torch.ones(1),
                stride_s=torch.ones(1),
                window_s=torch.ones(1),
                classes=("a",),
            )
        )


def test_post_processing_options_reach_the_model():
    config = models.config("actionformer", "compact", nms_sigma=0.9, width=64)
    assert config.post.nms_sigma == 0.9 and config.width == 64
