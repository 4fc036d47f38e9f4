"""Measurements while code runs: time, memory, energy, utilisation."""

import ctypes
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from tal_lib.process.memory import allow_memory, process_status

RAPL = Path("/sys/class/powercap")
TICK = 0.2  # seconds in which NVML renews its counter of energy for sure


def use_device(device: str) -> None:
    """Make a numbered GPU the current one: events, memory and counters are those of the current GPU."""
    kind, _, number = device.partition(":")
    if kind == "cuda" and number:
        torch.cuda.set_device(int(number))


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
        torch.cuda.reset_peak_memory_stats()  # of both allocated and reserved bytes
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


def peak_reserved(device: str) -> int | None:
    """Peak bytes that torch's allocator reserved on the GPU since the last `peak_memory`. None on a CPU.

    Unlike `peak_memory`, this is all of the process's memory there: the model's weights are in it.
    """
    return torch.cuda.max_memory_reserved() if device.startswith("cuda") else None


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


def nvml(device: str) -> tuple[Any, Any] | None:
    """(pynvml, handle of a CUDA device). None without NVML: no driver, or nvidia-ml-py is not installed.

    The handle is that of the device's UUID. NVML numbers all GPUs of a machine, torch those that it sees
    (`CUDA_VISIBLE_DEVICES`).
    """
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # ImportError, or NVMLError of a machine without the driver
        return None
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    try:
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError:  # a part of a GPU (MIG) has a UUID of another form
        number = int(device.partition(":")[2] or torch.cuda.current_device())
        return pynvml, pynvml.nvmlDeviceGetHandleByIndex(number)


def energy_counters(device: str) -> list[tuple[float, float]]:
    """(joules, joules at which the counter restarts from zero) of each counter. Empty if there is none.

    GPU: NVML's counter of the whole board. CPU: RAPL's counter of each processor package, which includes what
    other processes use. On most systems only root may read it.
    """
    if device.startswith("cuda"):
        gpu = nvml(device)
        if gpu is None:
            return []
        torch.cuda.synchronize()
        try:
            return [(gpu[0].nvmlDeviceGetTotalEnergyConsumption(gpu[1]) / 1e3, 0.0)]
        except gpu[0].NVMLError:  # older than Volta, or a part of a GPU
            return []
    counters = []
    for zone in sorted(RAPL.glob("intel-rapl:*")) if RAPL.is_dir() else []:
        try:
            if (zone / "name").read_text().startswith("package"):
                counters.append(
                    tuple(
                        int((zone / name).read_text()) / 1e6 for name in ("energy_uj", "max_energy_range_uj")
                    )
                )
        except (OSError, ValueError):  # not readable, or no number
            return []
    return counters


def energy_source(device: str) -> str:
    """Which counter of energy this machine exposes for a device: `NVML`, `RAPL`, or empty text for none."""
    if not energy_counters(device):
        return ""
    return "NVML" if device.startswith("cuda") else "RAPL"


class Energy:
    """Joules that the GPU (NVML) or the processor packages (RAPL) use during the block. None without a
    counter."""

    def __init__(self, device: str):
        self.device = device
        self.joules: float | None = None

    def __enter__(self):
        self.before = energy_counters(self.device)
        return self

    def __exit__(self, *_):
        after = energy_counters(self.device)
        used = [
            now - then if now >= then else now - then + most
            for (now, most), (then, _) in zip(after, self.before)
        ]
        self.joules = sum(used) if used and len(after) == len(self.before) else None


def joules_per_call(
    call: Callable[[], object], device: str, *, min_seconds: float = 1.0, least: int = 3
) -> float | None:
    """Mean joules of a call, over at least `min_seconds` and `least` calls. None without a counter.

    NVML renews its counter about ten times a second. Counting therefore begins and ends when it does; calls
    longer than `TICK` need no such end.
    """
    if not energy_source(device):
        return None
    cuda = device.startswith("cuda")

    def run():
        call()
        if cuda:
            torch.cuda.synchronize()

    if cuda:
        _until_renewed(device, lambda: None)
    calls, began = 0, time.perf_counter()
    with Energy(device) as energy:
        while calls < least or time.perf_counter() - began < min_seconds:
            run()
            calls += 1
        if cuda and time.perf_counter() - began < TICK * calls:
            calls += _until_renewed(device, run)
    return None if energy.joules is None else energy.joules / calls


def _until_renewed(device, call) -> int:
    """Call again and again until the counter of energy changes, for `TICK` seconds at most; how often."""
    before, began, calls = energy_counters(device), time.perf_counter(), 0
    while time.perf_counter() - began < TICK and energy_counters(device) == before:
        call()
        calls += 1
    return calls


class Utilisation:
    """Mean share of time in which a GPU kernel ran, sampled by NVML in a thread.

    NVML's value is itself a mean over up to a second, so that the first second does not count. None on a CPU,
    without NVML, and for blocks that are shorter.
    """

    SETTLED = 1.0  # seconds

    def __init__(self, device: str):
        self.device, self.values, self.stop = device, [], threading.Event()
        self.thread: threading.Thread | None = None

    def __enter__(self):
        gpu = nvml(self.device) if self.device.startswith("cuda") else None
        if gpu is not None:
            self.thread = threading.Thread(target=self._sample, args=gpu, daemon=True)
            self.thread.start()
        return self

    def _sample(self, library, handle):
        if self.stop.wait(self.SETTLED):
            return
        while True:
            try:
                self.values.append(library.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
            except library.NVMLError:  # a part of a GPU (MIG) has no rate
                return
            if self.stop.wait(0.02):
                return

    def __exit__(self, *_):
        self.stop.set()
        if self.thread is not None:
            self.thread.join()

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None
