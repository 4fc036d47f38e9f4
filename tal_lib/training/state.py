"""The complete state of a training, so that an interrupted training ends with the same result."""

import hashlib
import random
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tal_lib.files import digest, write_torch
from tal_lib.fingerprint import fingerprint
from tal_lib.models.parts.checkpoint_file import read_checkpoint

LIBRARY = Path(__file__).resolve().parent.parent
TRAINS = ("models", "training", "data")  # packages that affect training


class Average:
    """Exponential moving average of the weights.

    Args:
        ramp: follow the weights closely in the first steps; the decay is then at most (1 + step) /
            (10 + step).
    """

    def __init__(self, model: nn.Module, decay: float, *, ramp: bool = True):
        self.decay, self.ramp = decay, ramp
        current = model.state_dict()
        self.state = {name: value.detach().clone() for name, value in current.items()}
        floats = [name for name, value in current.items() if value.is_floating_point()]
        self.pairs = (
            [self.state[name] for name in floats],
            [current[name] for name in floats],
        )  # both share storage

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Include the model's weights after an optimizer step."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.ramp else self.decay
        torch._foreach_lerp_(*self.pairs, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    @contextmanager
    def in_place_of(self, model: nn.Module):
        """Within the block the model has the averaged weights."""
        trained = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.state)
        try:
            yield
        finally:
            model.load_state_dict(trained)

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from a saved average."""
        for name, value in state.items():
            self.state[name].copy_(value)


def random_states() -> dict:
    """The states of all global random generators: Python's, NumPy's, torch's on the CPU and on each CUDA
    device."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (
            kind,
            torch.from_numpy(keys.astype(np.int64)),  # pyright: ignore[reportAttributeAccessIssue]
            position,
            has_gauss,
            gauss,
        ),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: dict) -> None:
    """Set all global random generators. States of CUDA devices that this machine lacks are ignored."""
    kind, keys, position, has_gauss, gauss = states["numpy"]
    random.setstate(states["python"])
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])


def weights_digest(model: nn.Module) -> str:
    """Hash of a model's weights and buffers: names, types, shapes and all bits."""
    sha = hashlib.sha256()
    for name, value in model.state_dict().items():
        value = value.detach().cpu().contiguous()
        sha.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        sha.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:16]


class TrainingCode:
    """The source files of the training code. They are read when this object is made, and hashed on demand.

    Args:
        outside: source files of a model from outside this library.
    """

    def __init__(self, outside: Iterable[Path] = ()):
        files = [
            LIBRARY / "segments.py",
            *(path for name in TRAINS for path in (LIBRARY / name).rglob("*.py")),
        ]
        self._texts = [path.read_text(encoding="utf-8") for path in sorted({*files, *outside})]

    @cached_property
    def digest(self) -> str:
        """Hash of the code without comments, docstrings and formatting."""
        return digest([fingerprint(text) for text in self._texts])


@dataclass
class TrainingState:
    """The state of a training after an epoch."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    average: Average | None
    generator: torch.Generator  # for the order of recordings, crops and augmentation
    scaler: torch.amp.GradScaler  # of the loss; it does nothing unless the precision is float16
    history: list[dict] = field(default_factory=list)  # one row per epoch
    elapsed: float = 0.0  # seconds of training, including interrupted runs
    epoch: int = 0  # completed epochs

    def save(self, path: Path, identity: dict[str, str]) -> None:
        """Write the state and the training's identity to a file; the file is complete or absent."""
        content = {
            "identity": identity,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average and self.average.state,
            "scaler": self.scaler.state_dict(),
            "generator": self.generator.get_state(),
            "random": random_states(),
            "history": self.history,
            "elapsed": self.elapsed,
            "epoch": self.epoch,
        }
        write_torch(path, content)

    def load(self, path: Path, identity: dict[str, str]) -> list[str]:
        """Restore the state that `save` wrote, if the identity is equal.

        Returns:
            The parts of the identity that differ. If there are any, nothing is restored.

        Raises:
            TalError: the file is damaged.
        """
        saved = read_checkpoint(path)
        known = saved.get("identity")
        if not isinstance(known, dict):
            return ["version of this file"]
        if differs := sorted(name for name in {*identity, *known} if identity.get(name) != known.get(name)):
            return differs
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        if self.average:
            self.average.restore(saved["average"])
        self.scaler.load_state_dict(saved["scaler"])
        self.generator.set_state(saved["generator"])
        restore_random_states(saved["random"])
        self.history, self.elapsed, self.epoch = saved["history"], saved["elapsed"], saved["epoch"]
        return []
