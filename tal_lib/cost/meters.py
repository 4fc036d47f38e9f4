"""Measurements while code runs: time, memory, energy, utilisation."""

import ctypes
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from tal_lib.process.memory import allow_memory, process_status

RAPL = Path("/sys/class/powercap")


def latency_samples(
    call: Callable[[], object],
    device: str,
    *,
    min_seconds: float = 1.0,
    least: int = 5,
    max_seconds: float = 20.0,
    warm: bool = False,
) -> list[float]:
    """Seconds of single calls, after one warm-up call (no warm-up call if `warm`).

    Sampling lasts at least `min_seconds` and `least` calls. It ends at `max_seconds` in any case, after at
    least one call.
    """
    if not warm:
        call()
    cuda = device.startswith("cuda")
    samples: list[float] = []
    began = time.perf_counter()
    while True:
        spent = time.perf_counter() - began
        if len(samples) >= least and spent >= min_seconds or samples and spent >= max_seconds:
            return samples
        if cuda:
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            call()
            last.record()
            torch.cuda.synchronize()
            samples.append(first.elapsed_time(last) / 1e3)
        else:
            start = time.perf_counter()
            call()
            samples.append(time.perf_counter() - start)


QUIET = 1.06  # a round is quiet if the reference is at most this many times slower than its fastest
ROUNDS = 3


def reference_seconds(calls: int = 20) -> float:
    """Median seconds of a small fixed convolution. It shows how fast this core is right now."""
    generator = torch.Generator().manual_seed(0)
    values, weight = (
        torch.randn(1, 128, 720, generator=generator),
        torch.randn(128, 128, 3, generator=generator),
    )
    with torch.inference_mode():
        return statistics.median(
            latency_samples(
                lambda: torch.nn.functional.conv1d(values, weight), "cpu", min_seconds=0, least=calls
            )
        )


def steady_samples(
    call: Callable[[], object],
    device: str,
    *,
    fastest: float = float("inf"),
    min_seconds: float = 1.0,
    max_seconds: float = 20.0,
    **arguments,
) -> tuple[list[float], float, float]:
    """`latency_samples` of the quietest rounds. The speed of a shared core changes from second to second.

    A reference convolution is timed before and after every round. Rounds continue until `ROUNDS` of them were
    quiet, for at most eight times `min_seconds`. The samples of the `ROUNDS` quietest rounds are returned.
    For slow calls, sampling ends after at least two rounds, once it has taken more than three times
    `max_seconds`. A call of a minute already averages over disturbances.

    Args:
        fastest: fastest seconds of the reference so far on this machine.

    Returns:
        The samples, the reference's seconds in the slowest of these rounds, and its fastest seconds so far.
    """
    if device.startswith("cuda"):
        return (
            latency_samples(call, device, min_seconds=min_seconds, max_seconds=max_seconds, **arguments),
            float("nan"),
            fastest,
        )
    rounds, began = [], time.perf_counter()
    share = {"min_seconds": min_seconds / ROUNDS, "max_seconds": max_seconds / ROUNDS}
    before = reference_seconds()
    while True:
        samples = latency_samples(call, device, **share, **arguments)
        arguments["warm"] = True
        after = reference_seconds()
        rounds.append((max(before, after), samples))
        fastest, before = min(fastest, before, after), after
        quiet = sum(reference <= QUIET * fastest for reference, _ in rounds)
        spent = time.perf_counter() - began
        if (
            quiet >= ROUNDS
            or len(rounds) > 1
            and spent > 3 * max_seconds
            or len(rounds) >= ROUNDS
            and spent > 8 * min_seconds
        ):
            kept = sorted(rounds, key=lambda measured: measured[0])[:ROUNDS]
            return [sample for _, samples in kept for sample in samples], kept[-1][0], fastest


def peak_memory(call: Callable[[], object], device: str) -> int:
    """Peak bytes that `call` needs in addition to what the process held before.

    On a GPU these are allocated bytes, on a CPU resident bytes.
    """
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    try:
        # glibc: return the memory that building the model freed, or `call` uses it first
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of importing and building
        before = process_status("VmRSS")
        call()
        return max(0, process_status("VmHWM") - before)
    except OSError:  # not Linux: only the maximum of the process's lifetime is known
        import resource

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        call()
        return max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (
            1 if sys.platform == "darwin" else 1024
        )


@contextmanager
def memory_limit(limit: int | None):
    """Within the block this process may use `limit` bytes in addition to its present memory.

    Linux only. On other systems, and with None, there is no limit.
    """
    before = allow_memory(limit)
    try:
        yield
    finally:
        if before:
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, before)


class Energy:
    """Joules that the GPU (NVML) or the processor packages (RAPL) use during the block. None without a
    counter."""

    def __init__(self, device: str):
        self.device = device
        self.joules: float | None = None

    def __enter__(self):
        self.before = self._counters()
        return self

    def __exit__(self, *_):
        after = self._counters()
        used = [
            now - then if now >= then else now - then + most
            for (now, most), (then, _) in zip(after, self.before)
        ]
        self.joules = sum(used) if used and len(after) == len(self.before) else None

    def _counters(self):
        """(joules, value at which the counter restarts from zero) of each counter."""
        if self.device.startswith("cuda"):
            import pynvml

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())
            torch.cuda.synchronize()
            try:
                return [(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, 0.0)]
            except pynvml.NVMLError:  # older than Volta
                return []
        counters = []
        for zone in sorted(RAPL.glob("intel-rapl:*")) if RAPL.is_dir() else []:
            try:
                if (zone / "name").read_text().startswith("package"):
                    counters.append(
                        tuple(
                            int((zone / name).read_text()) / 1e6
                            for name in ("energy_uj", "max_energy_range_uj")
                        )
                    )
            except OSError:  # only root may read it on most systems
                return []
        return counters


class Utilisation:
    """Mean share of time in which a GPU kernel ran, sampled by NVML in a thread; None on a CPU."""

    def __init__(self, device: str):
        self.cuda, self.values, self.stop = device.startswith("cuda"), [], threading.Event()

    def __enter__(self):
        if self.cuda:
            import pynvml

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())

            def sample():
                while not self.stop.wait(0.02):
                    self.values.append(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)

            self.thread = threading.Thread(target=sample, daemon=True)
            self.thread.start()
        return self

    def __exit__(self, *_):
        if self.cuda:
            self.stop.set()
            self.thread.join()

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None
