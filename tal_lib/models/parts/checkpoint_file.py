"""Checkpoint files, read without executing anything in them."""

import zipfile
from pathlib import Path

import torch

from tal_lib.data.limits import check_zip
from tal_lib.errors import TalError


def read_checkpoint(path: str | Path) -> dict:
    """Contents of a checkpoint file, tensors and plain values only (nothing in it can run code).

    Raises:
        TalError: missing, damaged, not a checkpoint, or compressed to a small part of its size.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                check_zip(archive, path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TalError("file not found", where=path, remedy="Train a model with `tal train`.") from None
    except TalError:
        raise
    except Exception as error:  # damaged pickles end in any exception
        raise TalError(
            f"not a readable checkpoint ({(str(error) or type(error).__name__).splitlines()[0]})",
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
