"""Counts against published figures and a second counter; measurements against what they must be at least."""

import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tal_lib import TalError, models
from tal_lib.cost import (
    DoesNotFit,
    cost_table,
    count_macs,
    describe_machine,
    growth,
    growth_table,
    longest_text,
    longest_within,
    meters,
    passes,
    peak_within,
    profile,
    quantization,
)
from tal_lib.cost.isolated import isolated
from tal_lib.cost.profile import memory_statistics
from tal_lib.files import REPOSITORY
from tal_lib.process.environment import child_environment


@pytest.mark.shallow
@pytest.mark.parametrize(
    ("name", "params", "gmacs"),
    [("actionformer", 29.252, 45.250), ("tridet", 15.990, 43.698), ("temporalmaxer", 7.118, 23.491)],
)
def test_as_measured_on_the_authors_code(name, params, gmacs):
    """THUMOS14: T = 2304, D = 2048, K = 20; to 0.1 %."""
    model = models.build(name, input_dim=2048, num_classes=20, preset="paper")
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(params, rel=1e-3)
    macs, uncounted = count_macs(model, 2048, 2304)
    assert macs / 1e9 == pytest.approx(gmacs, rel=1e-3) and not uncounted


def test_an_unknown_operator_is_named():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3, 3))

        def forward(self, x):
            return torch.linalg.solve(self.weight + torch.eye(3), x[0])

    assert count_macs(Odd(), 3, 5)[1] != []


def test_profile_measures_in_a_process_of_its_own(monkeypatch):
    row = profile("window_cnn", 16, 200, num_classes=4, min_seconds=0.05, threads=1)
    model = models.build("window_cnn", input_dim=16, num_classes=4)
    assert (
        row.params == sum(p.numel() for p in model.parameters()) and row.macs == count_macs(model, 16, 200)[0]
    )
    assert row.uncounted_ops == "" and row.gpu_utilisation is None and row.threads == 1
    assert 0 < row.latency_s_p10 <= row.latency_s_median <= row.latency_s_p90
    assert row.latency_samples == len(row.latency_s_raw) >= 5
    assert profile(model, 16, 200, min_seconds=0.0, threads=1, memory_repeats=1).num_classes == 4
    assert row.memory_samples == len(row.peak_memory_bytes_raw) == 3
    assert 0 < row.peak_memory_bytes_p10 <= row.peak_memory_bytes <= row.peak_memory_bytes_p90
    # the default is all cores; for one, the process of the rows above is there already
    monkeypatch.setattr(sys.modules[profile.__module__], "usable_cores", lambda: 1)
    row = profile(model, 16, 200, min_seconds=0.0, memory_repeats=1)
    assert row.memory_samples == row.threads == 1


def test_the_pass_in_the_middle_counts(monkeypatch):
    """Three passes in different orders. Slow points are measured once; points that do not fit, not again."""
    calls = []
    once = {"min_seconds": 0.0, "memory_repeats": 1}
    real = profile("window_cnn", 8, 32, num_classes=3, threads=1, counted=False, **once)

    def measured(model, min_seconds, counted):
        number = sum(name == model for name, *_ in calls)
        calls.append((model, min_seconds, counted))
        if model == "large":
            raise DoesNotFit("no")
        latency = 50.0 if model == "slow" else (0.3, 0.1, 0.2)[number]
        return replace(
            real,
            latency_s_median=latency,
            latency_s_raw=(latency, 1.0),
            detect_s_median=2 * latency,
            latency_samples=2,
            macs=7 if counted else None,
            reference_s=latency,
            **memory_statistics([100 + number, 200 + number]),
        )

    monkeypatch.setattr(passes, "profile", measured)
    names = ["a", "b", "c", "slow", "large"]
    rows = passes.profile_all([{"model": name, "min_seconds": 0.6} for name in names], 3, seed=1)
    assert rows[4] is None and rows[3].passes == 1 and [name for name, *_ in calls].count("large") == 1
    first = rows[0]
    assert (first.passes, first.latency_s_median, first.reference_s, first.detect_s_median, first.macs) == (
        3,
        0.2,
        0.2,
        0.4,
        7,
    )
    assert sorted(first.latency_s_raw) == [0.1, 0.2, 0.3, 1.0, 1.0, 1.0] and first.latency_samples == 6
    assert first.peak_memory_bytes_raw == (100, 200, 101, 201, 102, 202) and first.memory_samples == 6
    assert (first.peak_memory_bytes_p10, first.peak_memory_bytes, first.peak_memory_bytes_p90) == (
        100,
        151,
        202,
    )
    assert (
        all(seconds == pytest.approx(0.2) for _, seconds, _ in calls)
        and sum(counted for *_, counted in calls) == 5
    )
    orders = [[name for name, *_ in calls if name in "abc"][at : at + 3] for at in (0, 3, 6)]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders) and len({*map(tuple, orders)}) > 1


def test_table_of_costs_says_what_did_not_fit():
    row = profile("window_cnn", 8, 32, num_classes=3, min_seconds=0.0, threads=1, memory_repeats=1)
    asked = [
        {"model": "stale", "length": 64, "preset": "compact", "input_dim": 8, "num_classes": 3, "threads": 1},
        {"model": "window_cnn", "length": 32},
    ]
    table = cost_table(asked, [None, row])
    assert table.fits.tolist() == [False, True] and table.model.tolist() == ["stale", "window_cnn"]
    assert (
        table.length_steps.tolist() == [64, 32]
        and np.isnan(table.latency_s_median[0])
        and table.num_classes[0] == 3
    )
    assert all(table.loc[1, name] == value for name, value in asdict(row).items() if value is not None)
    none = cost_table(asked[:1], [None])
    assert list(none) == list(table) and growth_table(none.dropna(subset=["macs"]), {"macs": "MACs"}).empty


def test_bfloat16_is_measured_and_close():
    row = profile(
        "actionformer",
        16,
        200,
        num_classes=4,
        precision="bfloat16",
        min_seconds=0.05,
        threads=1,
        counted=False,
        memory_repeats=1,
    )
    assert row.precision == "bfloat16" and row.weight_bytes == 2 * row.params
    torch.manual_seed(0)
    model = models.build("actionformer", input_dim=16, num_classes=4).eval()
    x = torch.randn(1, 16, 200)
    with torch.no_grad():
        want = model(x)[1]
        got = model.bfloat16()(x.bfloat16())[1].float()
    assert (got - want).abs().mean() < 0.05 * want.abs().mean() + 0.01


def test_peak_memory_is_at_least_what_must_be_held():
    once = {"min_seconds": 0.0, "memory_repeats": 1}
    row = profile("temporalmaxer", 32, 8000, num_classes=4, threads=1, counted=False, **once)
    assert row.peak_memory_bytes > 2 * 8000 * 128 * 4  # two levels of embedded features


def test_peak_memory_sees_a_known_allocation():
    """In a fresh process, as it is used: one that has freed memory before would take that first."""
    code = (
        "import torch; from tal_lib.cost.meters import peak_memory as peak; torch.ones(9).sum(); "
        f"print(peak(lambda: torch.ones({64 * 2**20} // 4).sum(), 'cpu'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert 0.9 < int(done.stdout) / (64 * 2**20) < 1.6


def test_memory_that_was_freed_before_is_not_counted_out():
    code = (
        "import torch; from tal_lib.cost.meters import peak_memory; "
        "some = [torch.ones(2**18 * k) for k in (1, 3, 8, 20, 20, 5)]; "
        "more = [torch.ones(2**18 * k) for k in (20, 5, 8)]; del some; "
        "print(peak_memory(lambda: torch.ones(2**22).sum(), 'cpu'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert 0.9 < int(done.stdout) / 2**24 < 1.3


def test_kept_memory_costs_no_page_faults():
    """Ten tensors of 40 MB in turn: without `keep_freed`, each one faults on its 10,240 pages.

    With it, a small object may still take a tensor's place, so that the next tensor lies elsewhere. After ten
    tensors there is room for all.
    """
    code = (
        "import resource, sys, torch; from tal_lib.process.memory import keep_freed\n"
        "keep_freed(41 * 2**20) if sys.argv[1:] else None\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "ten = lambda: [torch.ones(10 * 2**20).numel() for _ in range(10)]\n"
        "ten(); before = faults(); ten(); print(faults() - before)"
    )
    kept, given_back = (
        int(
            subprocess.run(
                [sys.executable, "-c", code, *more],
                cwd=REPOSITORY,
                capture_output=True,
                text=True,
                check=True,
                env=child_environment(1, keep_freed=False),
            ).stdout
        )
        for more in (["keep"], [])
    )
    assert kept < 200 and given_back > 100_000


def test_what_does_not_fit_says_so():
    with pytest.raises(DoesNotFit, match="temporalmaxer at 20000 steps does not fit"):
        peak_within("temporalmaxer", 32, 20000, 10_000_000, num_classes=4)
    with pytest.raises(DoesNotFit, match="temporalmaxer at 20000 steps does not fit"):
        profile("temporalmaxer", 32, 20000, min_seconds=0.0, memory_limit_bytes=10_000_000, threads=1)
    assert 0 < peak_within("temporalmaxer", 32, 200, 100_000_000, num_classes=4) < 100_000_000


def test_a_process_that_fails_otherwise_says_why():
    with pytest.raises(TalError, match="bad thing: the measuring process failed .*not-a-checkpoint") as error:
        isolated(
            quantization._compare,
            "bad thing",
            1,
            checkpoint="not-a-checkpoint",
            variants=["float32"],
            length=9,
            folder=None,
            min_seconds=0.0,
        )
    assert not isinstance(error.value, DoesNotFit)


def test_samples_stop_in_time(monkeypatch):
    clock = iter(range(0, 10**6))
    monkeypatch.setattr(
        meters.time, "perf_counter", lambda: float(next(clock))
    )  # every look at the clock costs a second
    assert len(meters.latency_samples(lambda: None, "cpu", min_seconds=0.0)) == 5
    assert len(meters.latency_samples(lambda: None, "cpu", min_seconds=60.0, max_seconds=8.0)) in (2, 3)
    assert len(meters.latency_samples(lambda: None, "cpu", min_seconds=30.0, max_seconds=100.0)) >= 10


def test_energy_of_a_counter_that_starts_again(tmp_path, monkeypatch):
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    write = lambda joules: [
        (zone / name).write_text(text)
        for name, text in (
            ("name", "package-0"),
            ("energy_uj", str(int(joules * 1e6))),
            ("max_energy_range_uj", "100000000"),
        )
    ]
    monkeypatch.setattr(meters, "RAPL", tmp_path)
    write(90)
    with meters.Energy("cpu") as energy:
        write(97.5)
    assert energy.joules == pytest.approx(7.5)
    with meters.Energy("cpu") as energy:
        write(2.5)
    assert energy.joules == pytest.approx(5)
    monkeypatch.setattr(meters, "RAPL", tmp_path / "nothing")
    with meters.Energy("cpu") as energy:
        pass
    assert energy.joules is None


@given(st.floats(0.3, 2.5), st.floats(1e-6, 1e3))
def test_growth_finds_the_exponent(exponent, factor):
    lengths = np.array([288, 576, 1152, 2304, 4608, 9216])
    estimate = growth(lengths, factor * lengths.astype(float) ** exponent)
    assert estimate.exponent == pytest.approx(exponent, abs=1e-6) and estimate.points == 4
    assert estimate.low <= estimate.exponent <= estimate.high and estimate.high - estimate.low < 1e-3


@given(st.floats(0, 1e9), st.floats(1.0, 1e5), st.floats(10_000, 1e6))
def test_beyond_the_longest_length_memory_is_a_line(base, slope, steps):
    lengths = np.array([288, 576, 1152, 2304, 4608, 9216])
    memory = base + slope * lengths
    memory[0] *= 0.5  # a shorter pass may need less than the line says
    length, beyond = longest_within(lengths, memory, base + slope * steps)
    assert length == pytest.approx(steps, rel=1e-6) and beyond
    assert (longest_text(length, beyond, 9216)[0] == "≈") == (length <= 8 * 9216)
    assert longest_text(length, beyond, 1152) == "> 9,216"


@given(st.floats(0, 1e9), st.floats(1.0, 1e5), st.floats(300, 9000))
def test_between_measured_lengths_memory_is_a_line_too(base, slope, steps):
    lengths = np.array([288, 576, 1152, 2304, 4608, 9216])
    length, beyond = longest_within(lengths, base + slope * lengths, base + slope * steps)
    assert length == pytest.approx(steps, rel=1e-6) and not beyond


@pytest.mark.parametrize(
    ("steps", "beyond", "text"),
    [
        (206_139.4, True, "≈ 210,000"),
        (13_199.6, False, "13,200"),
        (9_662.0, False, "9,660"),
        (0.0, False, "0"),
    ],
)
def test_a_length_has_the_digits_that_are_known(steps, beyond, text):
    assert longest_text(steps, beyond, 36_864) == text


def test_the_longest_recording_of_a_published_bmn():
    """Peak memory (MB) as measured: nearly constant, then a line. A power law says 31,966,403 steps."""
    lengths = [1152, 2304, 4608, 9216, 18432, 36864]
    memory = np.array([719.5, 713.5, 785.3, 783.7, 865.3, 1031.1])
    assert longest_within(lengths, memory, 2000)[0] == pytest.approx(145_000, rel=0.01)


def test_growth_of_too_little():
    assert np.isnan(growth([288, 576, 1152, 2304], [1, 2, 3, 4]).exponent)  # two lengths from 1,152 on
    assert longest_within([100, 200], [5.0, 6.0], 4.0) == (0.0, False)
    assert np.isnan(longest_within([288, 576, 1152, 2304], [1.0, 2.0, 3.0, 3.1], 50.0)[0])
    assert np.isnan(longest_within([1152, 2304, 4608], [3.0, 3.0, 3.0], 50.0)[0])
    length, beyond = longest_within([100, 200], [5.0, np.nan], 50.0)
    assert np.isnan(length) and beyond  # it did not fit somewhere, and nothing tells where
    assert longest_text(length, beyond, 100) == "not known" and np.isnan(
        longest_within([100], [np.nan], 50.0)[0]
    )


def test_interval_of_a_noisy_growth_holds_the_truth():
    rng, lengths = np.random.default_rng(0), np.array([1152, 2304, 4608, 9216, 18432])
    inside = [
        (estimate := growth(lengths, lengths**1.2 * np.exp(0.1 * rng.standard_normal(5)))).low
        <= 1.2
        <= estimate.high
        for _ in range(400)
    ]
    assert 0.92 < np.mean(inside) < 0.98


def test_the_machine_is_described():
    machine = describe_machine(seconds=0.01)
    assert machine["cores"] >= 1 and machine["memory_gb"] > 0.5 and machine["ceiling_gmac_s_float32"] > 0.1
    assert machine["device_name"] == machine["processor"]


def test_a_model_that_reads_names_is_measured_without_their_encoder(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    once = {"min_seconds": 0.0, "memory_repeats": 1}
    row = profile("text_pyramid", 8, 64, num_classes=3, text="clip", threads=1, **once)
    assert row.detect_s_median > 0 and row.uncounted_ops == ""


def test_bad_requests():
    for call in (
        lambda: profile("nonesuch", 16, 20),
        lambda: profile("bilstm", 16, 0),
        lambda: profile("bilstm", 16, 9, precision="int4"),
        lambda: profile(models.build("bilstm", input_dim=8, num_classes=2), 16, 20),
        lambda: profile(torch.nn.Linear(2, 2), 2, 20),
    ):
        with pytest.raises(TalError):
            call()
    if not torch.cuda.is_available():
        with pytest.raises(TalError, match="CUDA"):
            profile("bilstm", 16, 20, "cuda")


def test_of_disturbed_rounds_the_quiet_ones_are_kept(monkeypatch):
    """A core that is twice as slow in two of its five rounds: none of their samples is among those given."""
    slow = iter(
        [1.0, 1.0, 2.0, 1.0, 1.0, 1.0]
    )  # the reference before the first round and after each: rounds 2 and 3 are disturbed
    rounds = iter([[1.0], [20.0], [20.0], [2.0], [3.0]])
    monkeypatch.setattr(meters, "reference_seconds", lambda: next(slow))
    monkeypatch.setattr(meters, "latency_samples", lambda *_, **__: next(rounds))
    samples, reference, fastest = meters.steady_samples(None, "cpu")
    assert sorted(samples) == [1.0, 2.0, 3.0] and reference == 1.0 and fastest == 1.0
