"""The scan against a loop, forward and gradients; the blocks against Mamba's recurrence."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib import models
from tal_lib.models.action_mamba import SelectiveScan
from tal_lib.models.parts.scan import linear_scan


def loop(a, b, h):
    states = []
    for t in range(a.shape[1]):
        h = a[:, t] * h + b[:, t]
        states.append(h)
    return torch.stack(states, 1)


@settings(deadline=None, max_examples=40)
@given(steps=st.integers(1, 60), seed=st.integers(0, 1000), double=st.booleans(), begin=st.booleans())
def test_scan_equals_the_loop(steps, seed, double, begin):
    torch.manual_seed(seed)
    kind = torch.double if double else torch.float
    a = torch.rand(2, steps, 3, 2, dtype=kind, requires_grad=True)
    b = torch.randn(2, steps, 3, 2, dtype=kind, requires_grad=True)
    initial = torch.randn(2, 3, 2, dtype=kind, requires_grad=True)
    want = loop(a, b, initial if begin else torch.zeros_like(initial))
    got = linear_scan(a, b, initial if begin else None)
    torch.testing.assert_close(got, want)
    inputs = (a, b, initial) if begin else (a, b)
    weight = torch.randn_like(want)
    for mine, other in zip(
        torch.autograd.grad((got * weight).sum(), inputs), torch.autograd.grad((want * weight).sum(), inputs)
    ):
        torch.testing.assert_close(mine, other)


def test_long_decays_stay_finite():
    a, b = torch.full((1, 5000, 1), 1e-30), torch.ones(1, 5000, 1)
    assert linear_scan(a, b).isfinite().all() and linear_scan(torch.ones_like(a), b)[0, -1, 0] == 5000


def test_selective_scan_is_mambas_recurrence():
    torch.manual_seed(0)
    layer = SelectiveScan(4, 3, 2, 4).double()
    u = torch.randn(1, 11, 4, dtype=torch.double)
    x = F.silu(
        F.conv1d(F.pad(u.transpose(1, 2), (3, 0)), layer.conv.weight.T[:, None], layer.conv.bias, groups=4)
    ).transpose(1, 2)
    rate, b, c = (x @ layer.parameters_of.weight.T).split([2, 3, 3], -1)
    delta, a = F.softplus(rate @ layer.step.weight.T + layer.step.bias), -layer.log_a.exp()
    h, outputs = torch.zeros(4, 3, dtype=torch.double), []
    for t in range(11):
        h = (delta[0, t, :, None] * a).exp() * h + delta[0, t, :, None] * b[0, t] * x[0, t, :, None]
        outputs.append((h * c[0, t]).sum(-1) + layer.skip * x[0, t])
    torch.testing.assert_close(layer(u, None)[0], torch.stack(outputs))


def test_stretches_do_not_show():
    torch.manual_seed(0)
    layer = SelectiveScan(4, 3, 2, 4)
    x = torch.randn(1, 50, 4)
    with torch.no_grad():
        whole = layer(x, None)
        layer.LONGEST = 7
        torch.testing.assert_close(layer(x, None), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", ["dbm", "vim"])
def test_directions_mirror(block):
    """Reversed in time, dbm exchanges its halves; both blocks see the future as well as the past."""
    torch.manual_seed(0)
    model = models.build(
        "action_mamba", input_dim=4, num_classes=2, width=16, head_width=16, block=block
    ).eval()
    x = torch.randn(1, 12, 16, requires_grad=True)
    out = model.stem[0].mixer(x, None)
    for t in (0, 11):  # the output at either end depends on the input at the other
        grad = torch.autograd.grad(out[0, t].sum(), x, retain_graph=True)[0]
        assert grad[0, 11 - t].abs().sum() > 0
