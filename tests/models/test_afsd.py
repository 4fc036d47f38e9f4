import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib.models.afsd import boundary_pooling, range_max
from tal_lib.models.losses import giou


@settings(deadline=None, max_examples=40)
@given(steps=st.integers(1, 50), seed=st.integers(0, 1000))
def test_range_max_equals_a_slice(steps, seed):
    torch.manual_seed(seed)
    x = torch.randn(2, steps, 3)
    ends = torch.randint(steps, (2, 9, 2)).sort(-1).values
    got = range_max(x, ends[..., 0], ends[..., 1])
    for b in range(2):
        for p, (first, last) in enumerate(ends[b].tolist()):
            assert torch.equal(got[b, p], x[b, first:last + 1].amax(0))


def test_boundary_pooling_by_hand():
    x = torch.arange(20.0)[None, :, None].repeat(1, 1, 2)
    x[..., 1] = 19 - x[..., 1]  # the end half falls
    pooled = boundary_pooling(x, torch.tensor([[[4.0, 12.0]]]), torch.tensor([[20]]))
    # length 8: start region floor(3.2) … ceil(6), its maximum at the right; end region floor(10) … ceil(12.8), at the left
    assert pooled[0, 0].tolist() == [6.0, 9.0]


def test_giou_by_hand():
    a, b = torch.tensor([[0.0, 2.0], [0.0, 4.0]]), torch.tensor([[4.0, 6.0], [2.0, 6.0]])
    torch.testing.assert_close(giou(a, b), torch.tensor([1 + 2 / 6, 2 / 3]))
