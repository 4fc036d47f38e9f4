"""Counts against closed formulas and a second counter; measurements against what they must be at least."""

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tal_lib import TalError, models
from tal_lib.cost import count_macs, profile
from tal_lib.files import REPOSITORY


def actionformer_macs(config, D, K, T):
    """Closed form, from the architecture."""
    C, H, L = config.width, config.head_width, len(config.ranges)
    sizes = [-(-T // 2**level) for level in range(L)]
    taps = lambda size: 3 * size  # of a k3 convolution, padding included
    steps = config.stem_blocks * sizes[0] + sum(sizes[1:])
    depthwise = 3 * C * (config.stem_blocks * taps(sizes[0]) + sum(map(taps, sizes[1:])))
    block = 4 * C * C + 2 * config.mlp_ratio * C * C
    reach = config.window // 2
    queries = max(reach, 8)  # a block; it meets the keys up to `reach` to either side
    rows = lambda size: -(-size // queries) * queries
    attention = 2 * C * (queries + 2 * reach) * (config.stem_blocks * rows(sizes[0]) + sum(map(rows, sizes[1:])))
    heads = 2 * (C * H + (config.head_layers - 1) * H * H) + H * (K + 2)
    embedding = D * C + (config.embedding_layers - 1) * C * C
    return taps(T) * embedding + steps * block + depthwise + attention + taps(sum(sizes)) * heads


@pytest.mark.parametrize(("preset", "D", "K", "T"), [("compact", 300, 12, 735), ("compact", 7, 3, 50), ("paper", 64, 20, 576)])
def test_actionformer_equals_its_formula(preset, D, K, T):
    model = models.build("actionformer", input_dim=D, num_classes=K, preset=preset)
    assert count_macs(model, D, T) == (actionformer_macs(model.config, D, K, T), [])


@pytest.mark.parametrize(("name", "params", "gmacs"), [("actionformer", 29.252, 45.250), ("tridet", 15.990, 43.698),
                                                       ("temporalmaxer", 7.118, 23.491)])
def test_as_measured_on_the_authors_code(name, params, gmacs):
    """THUMOS14: T = 2304, D = 2048, K = 20; to 0.1 %."""
    model = models.build(name, input_dim=2048, num_classes=20, preset="paper")
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(params, rel=1e-3)
    macs, uncounted = count_macs(model, 2048, 2304)
    assert macs / 1e9 == pytest.approx(gmacs, rel=1e-3) and not uncounted


@pytest.mark.parametrize("name", models.names())
def test_every_operator_is_counted(name):
    model = models.build(name, input_dim=16, num_classes=4).eval().requires_grad_(False)
    total, uncounted = count_macs(model, 16, 100)
    assert uncounted == [] and total > 0
    # the second counter knows fewer operators, so it bounds from below
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 16, 100))
    assert total >= counter.get_total_flops() / 2


def test_an_unknown_operator_is_named():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3, 3))

        def forward(self, x):
            return torch.linalg.solve(self.weight + torch.eye(3), x[0])

    assert count_macs(Odd(), 3, 5)[1] != []


def test_bilstm_by_formula():
    model = models.build("bilstm", input_dim=10, num_classes=3)
    c = model.config
    seen = -(-100 // c.sequence) * (c.sequence + 2 * c.context)
    layers = 2 * 4 * c.width * ((10 + c.width) + (2 * c.width + c.width))
    out = -(-100 // c.sequence) * c.sequence * 2 * c.width * 4
    labelled = 100 * 2 * c.width * 4
    assert count_macs(model, 10, 100)[0] in (seen * layers + out, seen * layers + labelled)


def test_profile_measures_in_a_process_of_its_own():
    row = profile("window_cnn", 16, 200, num_classes=4, min_seconds=0.05, threads=1)
    model = models.build("window_cnn", input_dim=16, num_classes=4)
    assert row.params == sum(p.numel() for p in model.parameters()) and row.macs == count_macs(model, 16, 200)[0]
    assert row.uncounted_ops == "" and row.gpu_utilisation is None and row.threads == 1
    assert 0 < row.latency_s_p10 <= row.latency_s_median <= row.latency_s_p90
    assert row.latency_samples == len(row.latency_s_raw) >= 5
    assert profile(model, 16, 200, min_seconds=0.05).num_classes == 4


def test_bfloat16_is_measured_and_close():
    row = profile("actionformer", 16, 200, num_classes=4, precision="bfloat16", min_seconds=0.05)
    assert row.precision == "bfloat16" and row.weight_bytes == 2 * row.params
    torch.manual_seed(0)
    model = models.build("actionformer", input_dim=16, num_classes=4).eval()
    x = torch.randn(1, 16, 200)
    with torch.no_grad():
        want = model(x)[1]
        got = model.bfloat16()(x.bfloat16())[1].float()
    assert (got - want).abs().mean() < 0.05 * want.abs().mean() + 0.01


def test_peak_memory_is_at_least_what_must_be_held():
    row = profile("temporalmaxer", 32, 8000, num_classes=4, min_seconds=0.0)
    assert row.peak_memory_bytes > 2 * 8000 * 128 * 4  # two levels of embedded features


def test_peak_memory_sees_a_known_allocation():
    """In a fresh process, as it is used: one that has freed memory before would take that first."""
    code = ("import torch; from tal_lib.cost.profile import _peak_memory as peak; torch.ones(9).sum(); "
            f"print(peak(lambda: torch.ones({64 * 2**20} // 4).sum(), 'cpu'))")
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert 0.9 < int(done.stdout) / (64 * 2**20) < 1.6


def test_bad_requests():
    for call in (lambda: profile("nonesuch", 16, 20), lambda: profile("bilstm", 16, 0), lambda: profile("bilstm", 16, 9, precision="int4"),
                 lambda: profile(models.build("bilstm", input_dim=8, num_classes=2), 16, 20),
                 lambda: profile(torch.nn.Linear(2, 2), 2, 20)):
        with pytest.raises(TalError):
            call()
    if not torch.cuda.is_available():
        with pytest.raises(TalError, match="CUDA"):
            profile("bilstm", 16, 20, "cuda")
