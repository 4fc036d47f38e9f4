"""Runs code that was written for one machine with GPUs: `.cuda()` does nothing, random numbers are given.

Shared by the comparisons of the proposal models. Nothing here is of the authors.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from experiments.authors import Row, largest_difference
from tal_lib.cost.macs import count_macs
from tal_lib.training import Recipe


@contextmanager
def without_gpu() -> Iterator[None]:
    """`.cuda()` of tensors and modules returns the same; DataParallel is the module itself."""
    same = lambda self, *_, **__: self
    with ExitStack() as patches:
        for owner in (torch.Tensor, nn.Module):
            patches.enter_context(mock.patch.object(owner, "cuda", same))
        patches.enter_context(mock.patch.object(nn, "DataParallel", OneProcess))
        yield


class OneProcess(nn.DataParallel):
    """The module itself."""

    def __new__(cls, module, *_, **__):
        return module


@contextmanager
def random_numbers(ours: list[Tensor], theirs: list[Tensor]) -> Iterator[None]:
    """The next calls of torch.rand give `ours`, those of numpy.random.rand `theirs`."""
    with (
        mock.patch.object(torch, "rand", side_effect=ours),
        mock.patch.object(np.random, "rand", side_effect=[each.numpy() for each in theirs]),
    ):
        yield


def options(parser: Callable) -> dict:
    """Their default options, from their parser of the command line."""
    with mock.patch.object(sys, "argv", ["main.py"]), redirect_stdout(StringIO()):
        return vars(parser())


class Alone(nn.Module):
    """A function of features (B, D, T) as a network of its own, so that it can be counted."""

    def __init__(self, parts: list[nn.Module], call: Callable):
        super().__init__()
        self.parts, self.call = nn.ModuleList(parts), call
        self.eval()

    def forward(self, features: Tensor):
        return self.call(features)


def macs_row(model: str, case: str, ours: Alone, theirs: Alone, input_dim: int, steps: int) -> Row:
    """MACs of both by one counter; an operator that it does not know is named."""
    (our_count, our_unknown), (their_count, their_unknown) = (
        count_macs(network, input_dim, steps) for network in (ours, theirs)
    )
    unknown = ", ".join(sorted({*our_unknown, *their_unknown}))
    how = "tal_lib.cost.macs on both" + (f"; not counted: {unknown}" if unknown else "")
    return Row(model, "MACs", case, our_count, their_count, our_count / their_count, None, how)


def seconds(call: Callable, repeats: int) -> float:
    """Median time of a call, after one that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


def time_row(model: str, case: str, ours: Callable, theirs: Callable, repeats: int = 3) -> Row:
    """Ratio of the median times of two calls."""
    our_time, their_time = seconds(ours, repeats), seconds(theirs, repeats)
    how = f"median of {repeats}, {torch.get_num_threads()} threads"
    return Row(model, "time", case, our_time, their_time, our_time / their_time, None, how)


def recipe_rows(model: str, pairs: dict[str, tuple[float | str, float | str]]) -> Iterator[Row]:
    """One row a fact of the recipe; words differ by 1 or 0."""
    for case, (ours, theirs) in pairs.items():
        both = isinstance(ours, int | float) and isinstance(theirs, int | float)
        difference = abs(ours - theirs) if both else float(ours != theirs)
        yield Row(model, "recipe", case, ours, theirs, difference, 1e-9, "our recipe beside their options")


@contextmanager
def in_new_folder() -> Iterator[Path]:
    """The working folder is a new, temporary one: their code writes below it."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def gradient_row(model: str, case: str, ours: Tensor, theirs: Tensor, how: str) -> Row:
    """The difference of two gradients, relative to the largest entry of theirs."""
    scale = float(theirs.abs().max())
    difference = largest_difference(ours, theirs) / scale
    return Row(model, "gradient", case, "", scale, difference, 1e-4, f"relative to the largest; {how}")


def loss_row(model: str, case: str, ours: Tensor, theirs: Tensor, how: str, relative: float = 2e-5) -> Row:
    """Two values of a loss."""
    values = float(ours.detach()), float(theirs.detach())
    limit = relative * max(1.0, abs(values[1]))
    return Row(model, "loss", case, *values, abs(values[0] - values[1]), limit, how)


def taps_first(weight: Tensor) -> Tensor:
    """Weight of a 1-D convolution (C', C, k) in our layout (k, C, C')."""
    return weight.permute(2, 1, 0)


def step_recipe(
    plan: Recipe, optimizer: str, *, rate, decay, epochs, batch, first_drop, factor, of: str = ""
) -> dict[str, tuple[float | str, float | str]]:
    """Facts of a recipe with a step schedule, ours and theirs, for `recipe_rows`.

    Args:
        plan: our recipe; optimizer and the numbers: theirs, with `first_drop` in epochs.
        of: what the rate and the weight decay are of, if they have several.
    """
    return {
        "optimizer": (plan.optimizer, optimizer),
        f"learning rate{of}": (plan.learning_rate, rate),
        f"weight decay{of}": (plan.weight_decay, decay),
        "weight decay of": (plan.decayed, "all"),
        "epochs": (plan.epochs, epochs),
        "batch size": (plan.batch_size, batch),
        "first drop of the rate, epochs": (plan.drops[0] * plan.epochs, first_drop),
        "factor of a drop": (plan.drop_factor, factor),
    }


def suppressed_row(model: str, ours: np.ndarray, theirs: np.ndarray, how: str) -> Row:
    """The detections after soft-NMS: rows of start, end, score, in order."""
    apart = float(np.abs(ours - theirs[: len(ours)]).max())
    return Row(model, "decoding", "after soft-NMS", len(ours), len(theirs), apart, 1e-3, how)
