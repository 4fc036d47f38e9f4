import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib.data import collate, make_item
from tal_lib.data.batches import crop


def test_time_goes_to_steps_and_back(small):
    item = make_item(small, small.recordings("train")[0])
    batch = collate([item, make_item(small, max(small.recordings("train"), key=small.steps))])
    truth = small.annotations_of([item.recording])
    back = batch.to_seconds(0, item.segments)
    assert torch.allclose(back[:, 0].double(), torch.tensor(truth.start.to_numpy()), atol=1e-4)
    assert not batch.full and batch.mask.sum(1).tolist() == [item.features.shape[1], batch.mask.sum(1)[1]]
    padded = batch.features.transpose(1, 2)[~batch.mask]
    assert padded.abs().sum() == 0
    assert float(batch.to_seconds(0, torch.tensor([1e6]))) == float(batch.durations[0])


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), size=st.integers(5, 200))
def test_crops_keep_what_remains_by_half(small, seed, size):
    item = make_item(small, small.recordings("train")[seed % 8])
    got = crop(item, size, torch.Generator().manual_seed(seed))
    steps = got.features.shape[1]
    assert steps <= max(size, 1) and len(got.segments) == len(got.labels)
    assert ((got.segments >= -0.5001) & (got.segments <= steps - 0.4999)).all()
    first = next(
        i
        for i in range(item.features.shape[1] - steps + 1)
        if torch.equal(item.features[:, i : i + steps], got.features)
    )
    clipped = item.segments.clamp(first - 0.5, first + steps - 0.5) - first
    lengths = item.segments.diff(dim=1).squeeze(1)
    if steps < item.features.shape[1]:
        assert len(got.segments) == int((clipped.diff(dim=1).squeeze(1) >= 0.5 * lengths).sum())


@pytest.mark.parametrize(("shrink", "sizes"), [((0.5, 0.5), {50}), ((0.9, 1.0), set(range(90, 101)))])
def test_short_recordings_shrink_to_a_random_share(tiny, shrink, sizes):
    item = make_item(tiny([("a", 10, 90, "x")]), "a")
    generator = torch.Generator().manual_seed(0)
    lengths = {crop(item, 1000, generator, shrink=shrink).features.shape[1] for _ in range(200)}
    assert lengths <= sizes and len(lengths) > len(sizes) / 2
