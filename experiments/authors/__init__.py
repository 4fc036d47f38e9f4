"""What a comparison with an authors' repository needs: rows, their modules from a folder, perturbed weights.

One file a repository beside this one. Each has

    FOLDER     the name of the clone inside the folder that the user gives
    MODELS     our models that the clone is compared with
    rows(clone: Path, model: str) -> Iterator[Row]

and builds the authors' model from their own modules, copies its weights into ours, and compares. No code of
theirs is part of this project: the folder is the user's, and an error names what their code needs.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from unittest import mock

import torch
from torch import nn

from tal_lib.errors import TalError

ASPECTS = ("parameters", "MACs", "forward", "loss", "gradient", "decoding", "recipe", "time")


@dataclass(frozen=True)
class Row:
    """One comparison: a value of ours and of theirs, or the largest difference of many."""

    model: str
    aspect: str  # of ASPECTS
    case: str  # for example "T = 2304"
    ours: float | str
    theirs: float | str
    difference: float  # largest absolute difference; of times: the ratio ours / theirs
    limit: float | None  # the difference that passes; None: stated, not checked
    how: str  # how it was compared, in a sentence


@contextmanager
def importable(clone: Path, *packages: str, stand_ins: dict[str, ModuleType] | None = None) -> Iterator[None]:
    """The clone's `packages` can be imported inside; they are forgotten afterwards, since clones share names.

    `stand_ins`: modules by name that their code imports and that are not at hand (compiled extensions).
    """
    if not clone.is_dir():
        raise TalError("the authors' code is not there", where=clone, remedy="Clone their repository.")

    def forget():
        for name in [name for name in sys.modules if name.split(".")[0] in packages]:
            del sys.modules[name]

    forget()
    present = {name: module for name, module in (stand_ins or {}).items() if name not in sys.modules}
    sys.modules.update(present)
    sys.path.insert(0, str(clone))
    importlib.invalidate_caches()
    try:
        yield
    except ImportError as error:
        raise TalError(
            f"their code cannot be imported: {error}", where=clone, remedy="Install what it needs."
        ) from None
    finally:
        sys.path.remove(str(clone))
        forget()
        for name in present:  # one inside a package of theirs is forgotten already
            sys.modules.pop(name, None)


@contextmanager
def in_float64() -> Iterator[None]:
    """What is float32 in both codes is float64: `.float()`, `dtype=torch.float`, tensors without a kind."""
    torch.set_default_dtype(torch.float64)
    try:
        with (
            mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
            mock.patch.object(torch, "float", torch.float64),
            mock.patch.object(torch, "float32", torch.float64),
        ):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def perturb(model: nn.Module, seed: int = 0, equal: float = 0.0) -> nn.Module:
    """Moves every weight a little, so that no zero, one or equal start hides a difference.

    equal: how far, as a standard deviation, to move the weights of a tensor that are all equal.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            spread = 0.05 * (weight.std() if weight.numel() > 1 else 1.0)
            if weight.numel() > 1 and weight.min() == weight.max():
                spread = equal
            weight.add_(spread * torch.randn(weight.shape, generator=generator) + 0.01)
    return model


def largest_difference(ours, theirs) -> float:
    """The largest absolute difference of two tensors, or of two lists of tensors of equal shapes."""
    if isinstance(ours, torch.Tensor):
        ours, theirs = [ours], [theirs]
    return max(float((a.double() - b.double()).abs().max()) for a, b in zip(ours, theirs, strict=True))


def parameters(model: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
