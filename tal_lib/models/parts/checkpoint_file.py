"""Checkpoint files, read without executing anything in them."""

import zipfile
from pathlib import Path
from pickle import UnpicklingError

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
        raise TalError(
            "file not found", where=path, remedy="Check the path. `tal train` writes a model."
        ) from None
    except TalError:
        raise
    except Exception as error:  # damaged pickles end in any exception
        raise TalError(
            f"not a readable checkpoint ({_reason(error)})",
            where=path,
            remedy="Copy or train it again.",
        ) from None
    if not isinstance(content, dict):
        raise TalError(
            f"holds {type(content).__name__}, not a checkpoint",
            where=path,
            remedy="Check the path. `tal train` writes a model.",
        )
    return content


def _reason(error):
    """The reason in a few words. Torch's own text is long, and advises to run code that a file contains."""
    if isinstance(error, UnpicklingError):
        return "no checkpoint of PyTorch, damaged, or with code in it"
    return (str(error) or type(error).__name__).splitlines()[0]
