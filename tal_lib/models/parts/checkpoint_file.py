"""Checkpoint files, read without executing anything in them."""

import zipfile
from pathlib import Path

import torch

from tal_lib.errors import TalError

SPARE = 2**20  # bytes: names and padding of an archive


def read_checkpoint(path: str | Path) -> dict:
    """Contents of a checkpoint file, tensors and plain values only (nothing in it can run code).

    Raises:
        TalError: missing, damaged, not a checkpoint, or compressed: PyTorch writes none, and a few megabytes could
            stand for gigabytes.
    """
    try:
        _refuse_compressed(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TalError("file not found", where=path, remedy="Train a model with `tal train`.") from None
    except TalError:
        raise
    except Exception as error:  # damaged pickles end in any exception
        raise TalError(
            f"not a readable checkpoint ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
            where=path,
            remedy="Copy or train it again.",
        ) from None
    if not isinstance(content, dict):
        raise TalError(
            f"holds {type(content).__name__}, not a checkpoint",
            where=path,
            remedy="Train a model with `tal train`.",
        )
    return content


def _refuse_compressed(path):
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > Path(path).stat().st_size + SPARE:
        raise TalError(
            f"stands for {unpacked / 2**20:,.0f} MiB, more than its size",
            where=path,
            remedy="Save it with torch.save, which does not compress.",
        )
