"""Checkpoint files, read without executing anything in them."""

from pathlib import Path

import torch

from tal_lib.errors import TalError


def read_checkpoint(path: str | Path) -> dict:
    """Contents of a checkpoint file, tensors and plain values only (nothing in it can run code)."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TalError("file not found", where=path, remedy="Train a model with `tal train`.") from None
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
