"""Cost of a backbone's network on a device: pictures per second, memory, energy. Decoding is not in it."""

import statistics
from dataclasses import dataclass

import numpy as np
import torch

from tal_lib.cost.meters import (
    Utilisation,
    joules_per_call,
    latency_samples,
    peak_memory,
    peak_reserved,
    use_device,
)
from tal_lib.process.precision import allow_tf32, chosen_precision
from tal_lib.provenance import checked_device, device_name
from tal_lib.validation import Count, NotNegative, validate

PRECISIONS = ("float32", "tf32", "bfloat16", "auto")


@dataclass(frozen=True, kw_only=True)
class ExtractionRow:
    """One measurement: a backbone's network on a batch of pictures; times in seconds, memory in bytes."""

    backbone: str
    device: str
    device_name: str
    precision: str
    batch_size: int  # pictures
    pixels: int  # width and height of a picture
    params: int
    batch_s_median: float
    batch_s_p10: float
    batch_s_p90: float
    batch_samples: int
    pictures_per_s: float  # batch_size / batch_s_median
    peak_memory_bytes: int  # above what was there before the pass; weights and the pictures excluded
    peak_reserved_bytes: int | None  # by torch on the GPU, weights included; None on a CPU
    gpu_utilisation: float | None  # share of time in which a kernel ran, by NVML
    energy_j: float | None  # joules per batch, by NVML or RAPL; None if the machine exposes neither


def profile_extraction(
    backbone,
    device: str = "cpu",
    *,
    precision: str = "float32",
    batch_size: int = 32,
    min_seconds: float = 2.0,
) -> ExtractionRow:
    """Measure the network of a backbone on random pictures that are on the device already.

    Args:
        backbone: a `Backbone` with a network: its `module`, and `call(pictures (n, 3, pixels, pixels))`.
        min_seconds: of sampling, each of time and energy.

    Raises:
        TalError: an unknown precision, or a device that this machine lacks.
    """
    use_device(checked_device(device))
    precision = chosen_precision(precision, device, PRECISIONS)
    batch_size = validate(Count, batch_size, name="batch_size")
    min_seconds = validate(NotNegative, min_seconds, name="min_seconds")
    allow_tf32(precision == "tf32")
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    network = backbone.network
    module = network.module.to(device=device, dtype=kind).eval()
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(batch_size, 3, network.pixels, network.pixels, generator=generator)
    pictures = pictures.to(device=device, dtype=kind)

    def run():
        with torch.inference_mode():
            network.call(pictures)

    run()  # memory that the libraries allocate once is not the network's
    peak, reserved = peak_memory(run, device), peak_reserved(device)
    with Utilisation(device) as utilisation:
        samples = latency_samples(run, device, min_seconds=min_seconds, warm=True)
    median = statistics.median(samples)
    return ExtractionRow(
        backbone=backbone.name,
        device=device,
        device_name=device_name(device),
        precision=precision,
        batch_size=batch_size,
        pixels=network.pixels,
        params=sum(parameter.numel() for parameter in module.parameters()),
        batch_s_median=median,
        batch_s_p10=float(np.percentile(samples, 10)),
        batch_s_p90=float(np.percentile(samples, 90)),
        batch_samples=len(samples),
        pictures_per_s=batch_size / median,
        peak_memory_bytes=peak,
        peak_reserved_bytes=reserved,
        gpu_utilisation=utilisation.mean,
        energy_j=joules_per_call(run, device, min_seconds=min_seconds),
    )
