"""What one model costs at one recording length on one device; each measurement in a process of its own."""

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from tal_lib.cost.macs import count_macs
from tal_lib.data.batches import Item, collate
from tal_lib.errors import TalError
from tal_lib.models import Detector, build
from tal_lib.processes import child_environment
from tal_lib.provenance import device_name, usable_cores

PRECISIONS = ("float32", "bfloat16", "compiled")


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """One measurement; times in seconds, memory in bytes, MACs of one recording."""

    model: str
    preset: str
    device: str
    device_name: str
    precision: str
    threads: int
    length_steps: int
    input_dim: int
    num_classes: int
    params: int
    macs: int
    uncounted_ops: str  # operators that are in no count, separated by spaces; empty: the MACs are complete
    weight_bytes: int
    peak_memory_bytes: int  # above what the process held before the forward pass, weights excluded
    latency_s_median: float  # the network alone
    latency_s_p10: float
    latency_s_p90: float
    latency_samples: int
    detect_s_median: float  # network, decoding and NMS; untrained weights, so every point is a candidate
    detect_s_p90: float
    recordings_per_s: float  # 1 / detect_s_median
    gpu_utilisation: float | None  # share of time in which a kernel ran, by NVML; None on CPU
    latency_s_raw: tuple[float, ...]  # every sample

    @property
    def latency_s(self) -> float:
        """Median seconds of the network alone."""
        return self.latency_s_median


def profile(model: Detector | str, input_dim: int, length: int, device: str = "cpu", *, num_classes: int = 20,
            preset: str = "compact", precision: str = "float32", threads: int | None = None, min_seconds: float = 1.0,
            **overrides) -> CostRow:
    """Measure a model, given by name or as built by `tal_lib.models.build`, in a fresh process.

    Args:
        length: steps of the recording, batch of one; device: `cpu` or `cuda`.
        precision: one of `PRECISIONS`; `compiled` is float32 through torch.compile with dynamic length (needs a C++ compiler).
        threads: CPU threads (all usable cores if None); min_seconds: spent sampling each latency.
        num_classes, preset, overrides: of a model given by name.

    Raises:
        TalError: unknown model, a model that `build` did not make, no such device, or the process died (memory).
    """
    if isinstance(model, str):
        spec = {"name": model, "preset": preset, "input_dim": input_dim, "num_classes": num_classes, "overrides": overrides}
        build(model, input_dim=input_dim, num_classes=num_classes, preset=preset, **overrides)  # refuse nonsense here
    else:
        spec = getattr(model, "spec", None)
        if not spec:
            raise TalError("this model was not made by tal_lib.models.build", remedy="Build it by name.")
        if spec["input_dim"] != input_dim:
            raise TalError(f"the model takes {spec['input_dim']} columns, not {input_dim}", remedy="Pass its own input_dim.")
    if precision not in PRECISIONS:
        raise TalError(f"unknown precision {precision!r}", remedy=f"Choose from {', '.join(PRECISIONS)}.")
    if length < 1:
        raise TalError(f"length {length}", remedy="Give at least one step.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise TalError("no CUDA device here", remedy="Use device='cpu'.")
    threads = threads or usable_cores()
    job = {"spec": spec, "length": length, "device": device, "threads": threads, "min_seconds": min_seconds,
           "precision": precision}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-m", "tal_lib.cost.profile", f"{folder}/row.json"], input=json.dumps(job),
                              env=child_environment(threads, keep_freed=False), capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["killed, probably out of memory"])[-1]
            raise TalError(f"{spec['name']} at {length} steps: the measuring process ended with {done.returncode} ({last})",
                           remedy="Try a shorter length.")
        row = json.loads(Path(f"{folder}/row.json").read_text())
    return CostRow(**row | {"latency_s_raw": tuple(row["latency_s_raw"])})


def _resident(field):
    """VmRSS or VmHWM of this process in bytes."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def _peak_memory(call, device):
    """Bytes that `call` needs at its peak above what was held before."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of importing and building
        before = _resident("VmRSS")
        call()
        return max(0, _resident("VmHWM") - before)
    except OSError:  # not Linux: the lifetime maximum is all there is
        import resource

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        call()
        return max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)


def _samples(call, device, min_seconds, least=5):
    """Seconds of single calls after a warm-up: at least `least`, for at least `min_seconds`."""
    import time

    call()
    cuda = device.startswith("cuda")
    samples, began = [], time.perf_counter()
    while len(samples) < least or time.perf_counter() - began < min_seconds:
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
    return samples


class _Utilisation:
    """Mean GPU utilisation while the block runs, sampled by NVML in a thread."""

    def __enter__(self):
        import threading

        import pynvml

        pynvml.nvmlInit()
        handle, self.values, self.stop = pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device()), [], threading.Event()

        def sample():
            while not self.stop.wait(0.02):
                self.values.append(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)

        self.thread = threading.Thread(target=sample, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    @property
    def mean(self):
        return statistics.fmean(self.values) if self.values else None


def _measure(spec, length, device, threads, min_seconds, precision):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    make = lambda: build(spec["name"], input_dim=spec["input_dim"], num_classes=spec["num_classes"],  # noqa: E731
                         preset=spec["preset"], **spec["overrides"]).eval()
    model = make().to(device)
    item = Item(recording="r", features=torch.randn(spec["input_dim"], length), duration=float(length), stride_s=1.0,
                window_s=1.0, classes=tuple(map(str, range(spec["num_classes"]))), segments=torch.zeros(0, 2),
                labels=torch.zeros(0, dtype=torch.long))
    batch = collate([item]).to(device)
    if precision == "bfloat16":
        model = model.bfloat16()
    if precision == "compiled":
        model.compile(dynamic=True)
    features = batch.features.to(next(model.parameters()).dtype)

    def network():
        with torch.inference_mode():
            model(features)

    peak = _peak_memory(network, device)
    utilisation = None
    if device.startswith("cuda"):
        with _Utilisation() as gpu:
            latency = _samples(network, device, min_seconds)
        utilisation = gpu.mean
    else:
        latency = _samples(network, device, min_seconds)
    detect = _samples(lambda: model.detect(batch), device, min_seconds / 2, least=3)
    # last, because tracing takes memory of its own; of the eager float32 network, whatever ran
    macs, uncounted = count_macs(make(), spec["input_dim"], length)
    return CostRow(
        model=spec["name"], preset=spec["preset"], device=device, device_name=device_name(device), precision=precision,
        threads=threads, length_steps=length, input_dim=spec["input_dim"], num_classes=spec["num_classes"],
        params=sum(p.numel() for p in model.parameters()), macs=macs, uncounted_ops=" ".join(uncounted),
        weight_bytes=sum(p.numel() * p.element_size() for p in model.parameters()), peak_memory_bytes=peak,
        latency_s_median=statistics.median(latency), latency_s_p10=float(np.percentile(latency, 10)),
        latency_s_p90=float(np.percentile(latency, 90)), latency_samples=len(latency),
        detect_s_median=statistics.median(detect), detect_s_p90=float(np.percentile(detect, 90)),
        recordings_per_s=1 / statistics.median(detect), gpu_utilisation=utilisation, latency_s_raw=tuple(latency))


if __name__ == "__main__":
    row = _measure(**json.load(sys.stdin))
    Path(sys.argv[1]).write_text(json.dumps(asdict(row)))
