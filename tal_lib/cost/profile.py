"""Cost of one model at one recording length on one device. Each measurement has a fresh process."""

import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch

from tal_lib.cost.isolated import DoesNotFit, isolated
from tal_lib.cost.macs import count_macs
from tal_lib.cost.meters import (
    Utilisation,
    joules_per_call,
    memory_limit,
    peak_memory,
    peak_reserved,
    steady_samples,
    use_device,
)
from tal_lib.data.batches import collate, unannotated
from tal_lib.errors import TalError
from tal_lib.models import Detector, build, build_from
from tal_lib.process.memory import keep_freed
from tal_lib.process.precision import allow_tf32, chosen_precision
from tal_lib.provenance import checked_device, device_name, usable_cores
from tal_lib.validation import Count, NotNegative, Threads, validate

_fastest: dict[int, float] = {}  # threads -> fastest seconds of the reference so far
PRECISIONS = ("float32", "tf32", "bfloat16", "compiled", "auto")
MEMORY_REPEATS = 3  # fresh processes that measure the peak memory on a CPU


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
    macs: int | None  # None: not counted
    uncounted_ops: str  # operators that were not counted, separated by spaces; empty: the MACs are complete
    weight_bytes: int
    # median over fresh processes: above what each held before the forward pass, weights excluded
    peak_memory_bytes: int
    peak_memory_bytes_p10: int
    peak_memory_bytes_p90: int
    peak_memory_bytes_raw: tuple[int, ...]  # of every process
    memory_samples: int
    latency_s_median: float  # the network alone, in memory that the process already has (no fresh pages)
    latency_s_p10: float
    latency_s_p90: float
    latency_samples: int
    detect_s_median: float  # network, decoding and NMS; with untrained weights every point is a candidate
    detect_s_p90: float
    recordings_per_s: float  # 1 / detect_s_median
    gpu_utilisation: float | None  # share of time in which a kernel ran, by NVML; None on CPU
    energy_j: float | None  # joules of one forward pass, by NVML or RAPL; None if the machine exposes neither
    # of a fixed convolution, timed around the samples: if it is slow, something disturbed; None on a GPU
    reference_s: float | None
    latency_s_raw: tuple[float, ...]  # every sample
    peak_reserved_bytes: int | None = None  # by torch on the GPU, weights included; None on a CPU
    passes: int = 1  # processes that measured it, at different times

    @property
    def latency_s(self) -> float:
        """Median seconds of the network alone."""
        return self.latency_s_median


def profile(
    model: Detector | str,
    input_dim: int,
    length: int,
    device: str = "cpu",
    *,
    num_classes: int = 20,
    preset: str = "compact",
    precision: str = "float32",
    threads: int | None = None,
    min_seconds: float = 1.0,
    memory_limit_bytes: int | None = None,
    counted: bool = True,
    memory_repeats: int = MEMORY_REPEATS,
    **overrides,
) -> CostRow:
    """Measure a model in fresh processes. The model is a name or the result of `tal_lib.models.build`.

    Args:
        length: steps of the recording; the batch size is one.
        device: `cpu` or `cuda`.
        precision: one of `PRECISIONS`; `tf32` is float32 whose products have 10 bits of mantissa (CUDA alone;
            in no other precision are they shortened so); `compiled` is float32 with torch.compile and dynamic
            length (needs a C++ compiler); `auto` is bfloat16 where the device has instructions for it, else
            float32.
        threads: CPU threads (None: all usable cores).
        min_seconds: sampling time of each latency.
        memory_limit_bytes: bytes that one forward pass may use on a CPU, without weights; None: no limit.
        counted: whether MACs are counted too, which takes a second.
        memory_repeats: processes that measure the peak memory. One is enough on a GPU, whose allocated bytes
            are exact, and if the network is compiled, which takes long.
        num_classes, preset, overrides: of a model given by name.

    Raises:
        DoesNotFit: the model needs more memory than allowed, or than there is.
        TalError: unknown model, a model that `build` did not make, or no such device.
    """
    spec = _spec(model, input_dim, num_classes, preset, overrides)
    length = validate(Count, length, name="length")
    min_seconds = validate(NotNegative, min_seconds, name="min_seconds")
    checked_device(device)
    precision = chosen_precision(precision, device, PRECISIONS)
    threads = validate(Threads | None, threads, name="threads") or usable_cores()
    memory_repeats = validate(Count, memory_repeats, name="memory_repeats")
    subject = f"{spec['name']} at {length} steps"
    job = {
        "spec": spec,
        "length": length,
        "device": device,
        "precision": precision,
        "limit": memory_limit_bytes,
    }
    more = {"min_seconds": min_seconds, "counted": counted, "fastest": _fastest.get(threads)}
    row = isolated(_measure, subject, threads, **job, **more)
    _fastest[threads] = row.pop("fastest")
    again = 0 if device.startswith("cuda") or precision == "compiled" else memory_repeats - 1
    peaks = [row.pop("peak"), *(isolated(_peak, subject, threads, **job) for _ in range(again))]
    raw = {"latency_s_raw": tuple(row["latency_s_raw"]), "device_name": device_name(device)}
    return CostRow(**row | raw | memory_statistics(peaks))


def memory_statistics(peaks: list[int]) -> dict:
    """The fields of `CostRow` on memory, from the peak of each process in bytes."""
    p10, median, p90 = np.percentile(peaks, (10, 50, 90))
    return {
        "peak_memory_bytes": round(median),
        "peak_memory_bytes_p10": round(p10),
        "peak_memory_bytes_p90": round(p90),
        "peak_memory_bytes_raw": tuple(peaks),
        "memory_samples": len(peaks),
    }


def peak_within(
    model: Detector | str,
    input_dim: int,
    length: int,
    memory_limit_bytes: int | None = None,
    *,
    num_classes: int = 20,
    preset: str = "compact",
    **overrides,
) -> int:
    """Peak memory (bytes) of one forward pass on one thread of a CPU, which may use at most the limit.

    It is measured in a fresh process as in `profile`. No time is measured. The system enforces the limit, but
    not on memory that the process has freed before; the measured peak decides about that.

    Raises:
        DoesNotFit: the pass needs more memory than the limit, or than there is.
    """
    spec = _spec(model, input_dim, num_classes, preset, overrides)
    peak = isolated(
        _peak,
        f"{spec['name']} at {length} steps",
        1,
        spec=spec,
        length=validate(Count, length, name="length"),
        device="cpu",
        precision="float32",
        limit=memory_limit_bytes,
    )
    if memory_limit_bytes is not None and peak > memory_limit_bytes:
        raise DoesNotFit(
            f"{spec['name']} at {length} steps does not fit into {memory_limit_bytes:,} bytes "
            f"(it needs {peak:,})",
            remedy="Try a shorter length, or allow more.",
        )
    return peak


def _spec(model, input_dim, num_classes, preset, overrides):
    """What `build_from` takes to build the model again in another process."""
    if isinstance(model, str):
        # raise errors in this process
        build(model, input_dim=input_dim, num_classes=num_classes, preset=preset, **overrides)
        return {
            "name": model,
            "preset": preset,
            "input_dim": input_dim,
            "num_classes": num_classes,
            "overrides": overrides,
        }
    spec = getattr(model, "spec", None)
    if not spec:
        raise TalError("this model was not made by tal_lib.models.build", remedy="Build it by name.")
    if spec["input_dim"] != input_dim:
        raise TalError(
            f"the model takes {spec['input_dim']} columns, not {input_dim}",
            remedy=f"Pass input_dim={spec['input_dim']}.",
        )
    return spec


def _prepared(spec, length, device, precision, threads):
    """The model, a batch of one recording of noise, and a call of the network on it.

    The network has seen a few steps: memory that the libraries allocate once does not count as the model's.
    """
    use_device(device)
    allow_tf32(precision == "tf32")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = build_from(spec).eval().to(device)
    batch = collate([_noise(spec, length)]).to(device)
    model.class_names = batch.classes  # no cost depends on class names, so the text encoder is not called
    if precision == "bfloat16":
        model = model.bfloat16()
    if precision == "compiled":
        model.compile(dynamic=True)
    features = batch.features.to(next(model.parameters()).dtype)

    def network():
        with torch.inference_mode():
            model(features)

    with torch.inference_mode():
        model(features[..., :64])
    return model, batch, network


def _peak(spec, length, device, precision, limit, threads):
    _, _, network = _prepared(spec, length, device, precision, threads)
    with memory_limit(limit):
        return peak_memory(network, device)


def _measure(spec, length, device, threads, min_seconds, precision, limit, counted, fastest):
    model, batch, network = _prepared(spec, length, device, precision, threads)
    with memory_limit(None if device.startswith("cuda") else limit):
        began = time.perf_counter()
        peak, reserved = peak_memory(network, device), peak_reserved(device)
        # a slow network needs no second warm-up call
        slow = time.perf_counter() - began > 1 and precision != "compiled"
        if device == "cpu":
            keep_freed(peak)
        with Utilisation(device) as utilisation:
            latency, reference, fastest = steady_samples(
                network, device, fastest=fastest or float("inf"), min_seconds=min_seconds, warm=slow
            )
            joules = joules_per_call(network, device, min_seconds=min_seconds)
        detect, _, fastest = steady_samples(
            lambda: model.detect(batch),
            device,
            fastest=fastest,
            min_seconds=min_seconds / 2,
            least=3,
            max_seconds=10,
            warm=slow,
        )
    # last, because tracing uses memory; always of the eager float32 network
    macs, uncounted = (
        count_macs(build_from(spec).eval().to(device), spec["input_dim"], length) if counted else (None, [])
    )
    return dict(
        model=spec["name"],
        preset=spec["preset"],
        device=device,
        precision=precision,
        threads=threads,
        length_steps=length,
        input_dim=spec["input_dim"],
        num_classes=spec["num_classes"],
        params=sum(p.numel() for p in model.parameters()),
        macs=macs,
        uncounted_ops=" ".join(uncounted),
        weight_bytes=sum(p.numel() * p.element_size() for p in model.parameters()),
        peak=peak,
        latency_s_median=statistics.median(latency),
        latency_s_p10=float(np.percentile(latency, 10)),
        latency_s_p90=float(np.percentile(latency, 90)),
        latency_samples=len(latency),
        detect_s_median=statistics.median(detect),
        detect_s_p90=float(np.percentile(detect, 90)),
        recordings_per_s=1 / statistics.median(detect),
        gpu_utilisation=utilisation.mean,
        energy_j=joules,
        peak_reserved_bytes=reserved,
        latency_s_raw=latency,
        reference_s=None if device.startswith("cuda") else reference,
        fastest=None if device.startswith("cuda") else fastest,
    )


def _noise(spec, length):
    """A recording of random features without annotations."""
    return unannotated(
        "r",
        torch.randn(spec["input_dim"], length),
        float(length),
        1.0,
        1.0,
        tuple(map(str, range(spec["num_classes"]))),
    )
