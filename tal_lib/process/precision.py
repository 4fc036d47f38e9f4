"""Precision of a network: float32, or bfloat16 where the processor has instructions for it."""

import functools
import sys

from tal_lib.validation import unknown_name

PRECISIONS = ("float32", "bfloat16", "auto")
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
        TalError: `asked` is none of `known`.
    """
    if asked not in known:
        raise unknown_name(asked, known, name="precision")
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
