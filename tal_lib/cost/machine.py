"""The machine that a cost was measured on: one row per machine in results/tables/machines.csv."""

import os
import platform
import re
import subprocess
import time
from pathlib import Path

import torch

from tal_lib.cost.meters import energy_source, nvml
from tal_lib.provenance import cpu_name, device_name

# instruction sets that matrix products use
INSTRUCTIONS = re.compile(r"\b(avx2|avx512_vnni|avx512_bf16|avx512f|amx_bf16|amx_int8)\b")


def describe_machine(device: str = "cpu", seconds: float = 0.5) -> dict:
    """Describe the processor, memory and software, and measure the matrix product rate of one core (GMAC/s).

    The rate is measured in float32 and in bfloat16.
    """
    cpu = _lscpu()
    description = {
        "device_name": device_name(device),
        "processor": cpu_name(),
        "cores": os.cpu_count(),
        "threads_per_core": cpu.get("Thread(s) per core"),
        "l2_cache": cpu.get("L2 cache"),
        "l3_cache": cpu.get("L3 cache"),
        "virtual_machine": "hypervisor" in cpu.get("Flags", ""),
        "instruction_sets": " ".join(sorted(set(INSTRUCTIONS.findall(cpu.get("Flags", ""))))),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
        if hasattr(os, "sysconf")
        else None,
        "frequency_governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mkldnn": torch.backends.mkldnn.is_available(),
        "ceiling_gmac_s_float32": _ceiling(torch.float32, seconds),
        "ceiling_gmac_s_bfloat16": _ceiling(torch.bfloat16, seconds),
        "energy_counter": energy_source(device) or "none",
    }
    if device.startswith("cuda"):
        about = torch.cuda.get_device_properties(device)
        description |= {
            "gpu_memory_gb": round(about.total_memory / 1e9, 1),
            "gpu_driver": _driver(device),
            "cuda": torch.version.cuda,
            "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32,
        }
    return description


def _lscpu():
    try:
        lines = subprocess.run(
            ["lscpu"], capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"}
        ).stdout.splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _read(path):
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _driver(device):
    gpu = nvml(device)
    return gpu and gpu[0].nvmlSystemGetDriverVersion()


def _ceiling(kind, seconds, size=1024):
    """GMAC/s of square matrix products on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first, second = torch.randn(2, size, size).to(kind)
        first @ second
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            first @ second
            count += 1
        return round(count * size**3 / (time.perf_counter() - began) / 1e9, 1)
    finally:
        torch.set_num_threads(threads)
