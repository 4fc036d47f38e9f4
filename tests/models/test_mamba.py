"""The scan against a loop, forward and gradients; the blocks against Mamba's recurrence."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tal_lib import TalError, models
from tal_lib.models.action_mamba import SelectiveScan
from tal_lib.models.parts.conv import DepthwiseConv
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
    for gradient, expected in zip(
        torch.autograd.grad((got * weight).sum(), inputs), torch.autograd.grad((want * weight).sum(), inputs)
    ):
        torch.testing.assert_close(gradient, expected)


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


def test_paper_has_the_published_parameters():
    """Counted on the authors' code: one DBM block, and the detector of their THUMOS14 configuration."""
    model = models.build("action_mamba", input_dim=2048, num_classes=20, preset="paper")
    count = lambda module: sum(weight.numel() for weight in module.parameters() if weight.requires_grad)
    assert [count(block.mixer) for block in [*model.stem, *model.branch]] == [1_633_792] * 7
    assert count(model) == 18_571_292
    assert model.stem[0].norm.eps == 1e-6 and model.stem[0].drop.rate == 0.3


@pytest.mark.parametrize("preset", ["paper", "paper_activitynet"])
def test_paper_learns_as_the_authors_do(preset):
    """Their assignment takes the upper end of a range, and their biases start at zero, but for those of Δ."""
    config = models.config("action_mamba", preset)
    assert config.closed_ranges and config.bias_init == "zero"
    model = models.build("action_mamba", input_dim=4, num_classes=2, preset=preset, width=32, head_width=16)
    biases = {key: value for key, value in model.named_parameters() if key.endswith("bias")}
    drawn = {key for key, value in biases.items() if float(value.detach().std()) > 0}
    blocks = [f"stem.{index}" for index in range(2)] + [f"branch.{index}" for index in range(5)]
    assert drawn == {f"{block}.mixer.scan.step.bias" for block in blocks}
    assert all(float(value.detach().abs().max()) == 0 for key, value in biases.items() if "scan.conv" in key)


def test_compact_starts_as_before():
    """With the random numbers in the order that its published results had."""
    config = models.config("action_mamba", "compact")
    assert not config.closed_ranges and config.bias_init == "uniform"
    torch.manual_seed(0)
    scan = SelectiveScan(6, 3, 2, 4)
    torch.manual_seed(0)
    twin = nn.ModuleList([DepthwiseConv(6, 4, bias=True, causal=True), nn.Linear(6, 8, bias=False)])
    step = nn.Linear(2, 6)
    nn.init.uniform_(step.weight, -(2**-0.5), 2**-0.5)
    sizes = torch.exp(torch.rand(6) * (math.log(0.1) - math.log(1e-3)) + math.log(1e-3))
    assert torch.equal(scan.conv.bias, twin[0].bias) and torch.equal(scan.step.weight, step.weight)
    torch.testing.assert_close(F.softplus(scan.step.bias), sizes)
    # the last numbers drawn for the whole model are those of the heads: no bias of Δ is drawn again
    torch.manual_seed(0)
    model = models.build("action_mamba", input_dim=4, num_classes=2, width=16, head_width=16, state=3)
    after, state = torch.rand(1), {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(0)
    again = models.build(
        "action_mamba", input_dim=4, num_classes=2, width=16, head_width=16, state=3, bias_init="zero"
    )
    assert not torch.equal(torch.rand(1), after)
    same = {key for key, value in again.state_dict().items() if torch.equal(value, state[key])}
    assert {key for key in state if key.endswith(("scan.step.bias", "scan.conv.bias"))} == state.keys() - same


def test_compact_keeps_half_of_the_published_width():
    model = models.build("action_mamba", input_dim=8, num_classes=2, preset="compact")
    mixer = model.stem[0].mixer
    assert mixer.inner.weight.shape == (256, 128) and mixer.out.weight.shape == (128, 128)
    assert model.stem[0].norm.eps == 1e-5 and model.stem[0].drop.rate == 0.1


@pytest.mark.parametrize("expand", [0.5, 1.0, 1.5])
def test_dbm_is_two_gated_scans_side_by_side(expand):
    """Step by step from the equations: each direction is convolved, scanned, gated; then one projection."""
    torch.manual_seed(0)
    model = models.build(
        "action_mamba", input_dim=4, num_classes=2, width=32, head_width=16, state=3, expand=expand
    )
    mixer = model.stem[0].mixer.double()
    scanned = int(32 * expand)
    weights = {key: value.detach() for key, value in mixer.named_parameters()}
    assert weights["inner.weight"].shape == (4 * scanned, 32)
    x = torch.randn(9, 32, dtype=torch.double)
    ahead, back, gate_ahead, gate_back = (x @ weights["inner.weight"].T).split(scanned, 1)

    def direction(signal, gate):
        kernel, a, h, outputs = weights["scan.conv.weight"], -weights["scan.log_a"].exp(), 0, []
        for t in range(len(signal)):
            u = weights["scan.conv.bias"].clone()
            for k in range(len(kernel)):  # the last tap sees the step itself
                if t - (len(kernel) - 1) + k >= 0:
                    u += kernel[k] * signal[t - (len(kernel) - 1) + k]
            u = F.silu(u)
            rate, b, c = (weights["scan.parameters_of.weight"] @ u).split([2, 3, 3])
            delta = F.softplus(weights["scan.step.weight"] @ rate + weights["scan.step.bias"])[:, None]
            h = (delta * a).exp() * h + delta * b * u[:, None]
            outputs.append((h @ c + weights["scan.skip"] * u) * F.silu(gate[t]))
        return torch.stack(outputs)

    both = [direction(ahead, gate_ahead), direction(back.flip(0), gate_back.flip(0)).flip(0)]
    torch.testing.assert_close(mixer(x[None], None)[0], torch.cat(both, 1) @ weights["out.weight"].T)


@pytest.mark.parametrize("options", [{"expand": 0.3, "width": 16}, {"expand": 0.01, "width": 16}])
def test_expand_must_give_whole_channels(options):
    with pytest.raises(TalError, match=f"expand={options['expand']}, width=16: .* channels scan each way"):
        models.build("action_mamba", input_dim=4, num_classes=2, **options)


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
