"""Precision of a network: float32, or mixed precision in bfloat16 (CPU and GPU) or float16 (GPU alone)."""

import functools
import sys

from tal_lib.errors import TalError
from tal_lib.validation import unknown_name

PRECISIONS = ("float32", "bfloat16", "float16", "auto")
ONLY_CUDA = ("float16", "tf32")
# of torch.cpu.get_capabilities(): x86, then ARM
BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def multiplies_bfloat16(device: str = "cpu") -> bool:
    """Whether the device has instructions for products in bfloat16.

    CPU: AVX-512 BF16, AMX or ARM's BF16. GPU: compute capability 8.0 (Ampere) or later.
    """
    import torch

    if str(device).startswith("cuda"):
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in BFLOAT16_INSTRUCTIONS)


def chosen_precision(asked: str, device: str = "cpu", known: tuple[str, ...] = PRECISIONS) -> str:
    """What `asked` means on a device. `auto` is bfloat16 where the device multiplies it, else float32.

    Prints a warning of one line if bfloat16 is asked for on a device that would compute it more slowly.

    Raises:
        TalError: `asked` is none of `known`, or only a CUDA GPU computes in it and the device is another.
    """
    if asked not in known:
        raise unknown_name(asked, known, name="precision")
    if asked in ONLY_CUDA and not str(device).startswith("cuda"):
        others = [name for name in known if name not in ONLY_CUDA]
        raise TalError(
            f"precision {asked} needs a CUDA GPU, and the device is {device}",
            remedy=f"Choose from {', '.join(others)}, or another device.",
        )
    if asked == "auto":
        return "bfloat16" if multiplies_bfloat16(device) else "float32"
    if asked == "bfloat16" and not multiplies_bfloat16(device):
        warn_of_bfloat16("GPU" if str(device).startswith("cuda") else "processor")
    return asked


@functools.cache
def warn_of_bfloat16(what: str) -> None:
    """Print the warning, once in a process."""
    print(
        f"bfloat16: this {what} has no instructions for it. Expect 1.4 to 3.6 times the time of float32. "
        "Choose float32 or auto.",
        file=sys.stderr,
    )


def allow_tf32(allowed: bool) -> None:
    """Whether a CUDA GPU may shorten the factors of this process's float32 products to 10 bits (TF32).

    torch allows it in convolutions by default, and forbids it in matrix products.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
