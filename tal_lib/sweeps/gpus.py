"""The GPUs of this machine that a sweep spreads over: one cell on each at a time.

    tal sweep GRID --gpus 0,1

Each worker process sees one GPU through `CUDA_VISIBLE_DEVICES`, so a cell needs no option of its own. Numbers
are those of `nvidia-smi`. If `CUDA_VISIBLE_DEVICES` is set already, they count its entries from 0.
"""

import os
from typing import Annotated, Any

from pydantic import BeforeValidator

from tal_lib.errors import TalError
from tal_lib.validation import validate

VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
MOST = 1024  # GPUs of a machine


def _numbers(value):
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not parts:
        raise ValueError("GPU numbers such as 0,1")
    texts = [str(part).strip() for part in parts if not isinstance(part, bool)]
    if len(texts) < len(parts) or not all(text.isascii() and text.isdecimal() for text in texts):
        raise ValueError("GPU numbers such as 0,1")
    numbers = tuple(map(int, texts))
    if max(numbers) >= MOST or len(set(numbers)) < len(numbers):
        raise ValueError(f"a list of different GPU numbers below {MOST}")
    return numbers


Gpus = Annotated[Any, BeforeValidator(_numbers)]  # text `0,1` or a list of numbers → tuple


def count_gpus() -> int:
    """Number of CUDA GPUs that this process can see."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def gpu_environments(gpus, *, jobs: int | None = None, cluster: str | None = None) -> list[dict[str, str]]:
    """Environment variables of a worker process for each GPU.

    Args:
        gpus: text `0,1` or numbers; jobs, cluster: other settings of the sweep, which must not contradict.

    Raises:
        TalError: not a list of different GPU numbers, a GPU that this machine lacks, a cluster, another
            number of jobs, or a `$TAL_DEVICE` that is not the one GPU of a process.
    """
    numbers = validate(Gpus, gpus, where="--gpus")
    given = ",".join(map(str, numbers))
    if cluster is not None:
        raise TalError(
            f"--gpus {given} with --cluster {cluster}",
            remedy="Leave out --gpus: a worker of a cluster has its own GPU (docs/cluster.md).",
        )
    if jobs is not None and jobs != len(numbers):
        raise TalError(
            f"--jobs {jobs} with --gpus {given}", remedy="Leave out --jobs: one cell runs on each GPU."
        )
    device = os.environ.get("TAL_DEVICE") or "cuda"
    if device not in ("cuda", "cuda:0"):
        raise TalError(
            f"TAL_DEVICE={device} with --gpus {given}",
            remedy="Unset TAL_DEVICE: each cell sees one GPU, which is cuda.",
        )
    count = count_gpus()
    if max(numbers) >= count:
        raise TalError(
            f"--gpus {given}: " + (f"there are {count} GPUs here" if count else "there is no CUDA GPU here"),
            remedy=f"Choose from 0 to {count - 1}."
            if count
            else "Leave out --gpus; with --dry-run too, since the cells are the same.",
        )
    visible = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    order = os.environ.get(ORDER, "PCI_BUS_ID")  # the order of nvidia-smi
    return [{VISIBLE: visible[n] if visible else str(n), ORDER: order} for n in numbers]
