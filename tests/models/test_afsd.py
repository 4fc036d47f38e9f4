import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib import models
from tal_lib.data import collate, make_item
from tal_lib.models.afsd import boundary_pooling, choose_cut, end_features, range_max
from tal_lib.models.parts.losses import giou


@settings(deadline=None, max_examples=40)
@given(steps=st.integers(1, 50), seed=st.integers(0, 1000))
def test_range_max_equals_a_slice(steps, seed):
    torch.manual_seed(seed)
    x = torch.randn(2, steps, 3)
    ends = torch.randint(steps, (2, 9, 2)).sort(-1).values
    got = range_max(x, ends[..., 0], ends[..., 1])
    for b in range(2):
        for p, (first, last) in enumerate(ends[b].tolist()):
            assert torch.equal(got[b, p], x[b, first : last + 1].amax(0))


def test_boundary_pooling_by_hand():
    x = torch.arange(20.0)[None, :, None].repeat(1, 1, 2)
    x[..., 1] = 19 - x[..., 1]  # the end half falls
    pooled = boundary_pooling(x, torch.tensor([[[4.0, 12.0]]]), torch.tensor([[20]]))
    # length 8: start region floor(3.2) … ceil(6), its maximum at the right;
    # end region floor(10) … ceil(12.8), its maximum at the left
    assert pooled[0, 0].tolist() == [6.0, 9.0]


def test_giou_by_hand():
    a, b = torch.tensor([[0.0, 2.0], [0.0, 4.0]]), torch.tensor([[4.0, 6.0], [2.0, 6.0]])
    torch.testing.assert_close(giou(a, b), torch.tensor([1 + 2 / 6, 2 / 3]))


def test_cuts_are_actions_and_free_stretches():
    segments = torch.tensor([[2.0, 12.0], [12.0, 15.0], [22.0, 40.0]])
    for seed in range(20):
        torch.manual_seed(seed)
        (start, end), (first, last) = choose_cut(segments, 50)
        assert (start, end) in {(2, 12), (22, 40)}
        assert (first, last) in {(15, 22), (40, 50)} and last - first <= end - start
    assert choose_cut(segments[1:2], 50) is None  # too short an action
    assert choose_cut(torch.tensor([[0.0, 48.0]]), 50) is None  # too little background


def test_end_features_by_hand():
    x = torch.arange(40.0)[None, :, None]
    starts, ends = end_features(x, torch.tensor([[10.0, 20.0]]))
    assert starts.item() == 13 and ends.item() == 21  # [9, 12.5] and [17.5, 21], rounded outwards


def test_contrast_prefers_halves_that_are_alike(small):
    torch.manual_seed(0)
    batch = collate([make_item(small, recording) for recording in small.recordings("train")[:2]])
    model = models.build(
        "afsd", input_dim=small.feature_spec.dim, num_classes=len(small.classes), contrast_weight=0.1
    ).train()
    losses = model.loss(model.run(batch), batch)
    losses["total"].backward()
    assert 0 < float(losses["contrast"]) <= 10 and model.frame[0].conv.weight.grad.abs().sum() > 0
    # where all steps look alike every distance is zero, and each of the two terms is its margin
    batch.features.fill_(1.0)
    model.frame_features = lambda x, keep: torch.ones_like(x)
    assert float(model.contrast_loss(batch).detach()) == 2
