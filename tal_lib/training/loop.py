"""Training: one loop for every model."""

import math
import random
import time
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from tal_lib.data.augment import Augment
from tal_lib.data.batches import Batch, collate, crop, make_item
from tal_lib.data.benchmark import Benchmark
from tal_lib.data.tables import empty_detections
from tal_lib.errors import TalError
from tal_lib.files import write_text, write_torch
from tal_lib.models import Detector
from tal_lib.models.parts.checkpoint_file import read_checkpoint
from tal_lib.models.parts.detector import in_float32
from tal_lib.provenance import checked_device, default_device
from tal_lib.training.checkpoints import Trained, save_model
from tal_lib.training.recipes import Recipe
from tal_lib.writing import claim, is_ours, remove_replaceable

WRITTEN = ("model.pt", "history.csv", "training.pt")  # by `fit`; the last one is there until it ends


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What `fit` leaves: the model holds the trained (averaged) weights."""

    model: Detector
    history: pd.DataFrame  # one row an epoch: epoch, step, seconds, learning_rate, and the mean of each loss
    steps: int  # optimizer steps
    seconds: float  # wall time of training, over all sittings
    checkpoint: Path | None  # the saved model


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch; call it before `build`, so that the initial weights follow the seed too."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay on matrices and kernels only, not on biases, norms, scales and learned tokens."""
    decayed, rest = [], []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            plain = (
                name.startswith("bias")
                or parameter.ndim < 2
                or isinstance(module, nn.LayerNorm | nn.GroupNorm)
            )
            (rest if plain else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def learning_rate_factor(step: int, total: int, recipe: Recipe) -> float:
    """Share of the learning rate at a step: linear warm-up, then cosine to zero (or constant)."""
    warm = max(1, round(recipe.warmup * total)) if recipe.warmup > 0 else 0
    if step < warm:
        return (step + 1) / warm
    if recipe.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


class _Average:
    """Exponential moving average of the weights; follows closely in the first steps."""

    def __init__(self, model, decay):
        self.decay = decay
        current = model.state_dict()
        self.state = {name: value.detach().clone() for name, value in current.items()}
        floats = [name for name, value in current.items() if value.is_floating_point()]
        self.pairs = (
            [self.state[name] for name in floats],
            [current[name] for name in floats],
        )  # both share storage

    @torch.no_grad()
    def update(self, step):
        torch._foreach_lerp_(*self.pairs, 1 - min(self.decay, (1 + step) / (10 + step)))

    @contextmanager
    def in_place_of(self, model):
        """Within the block the model has the averaged weights."""
        trained = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.state)
        try:
            yield
        finally:
            model.load_state_dict(trained)

    def restore(self, state):
        for name, value in state.items():
            self.state[name].copy_(value)


def run_in(precision: str, model: Detector, batch: Batch) -> tuple[torch.Tensor, ...]:
    """The network on a batch, in a recipe's precision; outputs, and so the losses, are float32."""
    with torch.autocast(batch.features.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        outputs = model.run(batch)
    return in_float32(outputs)


def make_optimizer(model: Detector, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam or AdamW, as the recipe says."""
    make = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return make(parameter_groups(model, recipe.weight_decay), lr=recipe.learning_rate, fused=True)


def training_step(
    model: Detector, batch: Batch, optimizer: torch.optim.Optimizer, recipe: Recipe
) -> dict[str, torch.Tensor]:
    """Forward, backward and update on one batch; its losses.

    Raises:
        TalError: the loss is not finite; the weights are as before.
    """
    losses = model.loss(run_in(recipe.precision, model, batch), batch)
    if not torch.isfinite(losses["total"]):
        raise TalError(
            f"the loss became {float(losses['total'])}",
            where=f"recordings {', '.join(batch.recordings)}",
            remedy="Lower the learning rate, or check these recordings' features.",
        )
    optimizer.zero_grad(set_to_none=True)
    losses["total"].backward()
    if recipe.clip_norm:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
    optimizer.step()
    return losses


def fit(
    model: Detector,
    benchmark: Benchmark,
    recordings: list[str],
    recipe: Recipe,
    seed: int,
    out_dir: str | Path | None = None,
    *,
    stream: str | None = None,
    device: str | None = None,
    progress: bool = False,
    on_epoch=None,
) -> TrainResult:
    """Train `model` in place on the given recordings.

    Args:
        recordings: ids, e.g. from `limited_subset`; seed: of the order of recordings, crops and dropout.
        out_dir: where `model.pt` and `history.csv` go; with None nothing is written. An interrupted run found there
            (`training.pt`, written at most every minute) is taken up where it stopped.
        stream: train on one stream's columns only; device: `$TAL_DEVICE`, a CUDA GPU or the CPU if None.
        on_epoch: called as `on_epoch(epoch, seconds, model)` after each epoch, the model with its averaged weights; its time is not
            counted, and it must not draw random numbers.

    Raises:
        TalError: no recordings, no annotated segment among them, or a loss that is not finite.
    """
    device = checked_device(device) if device else default_device()
    if not recordings:
        raise TalError("no training recordings", where=benchmark.name, remedy="Raise the fraction.")
    items = [make_item(benchmark, recording, stream) for recording in recordings]
    if not any(len(item.segments) for item in items):
        raise TalError(
            f"none of the {len(items)} training recordings has an annotated segment",
            where=benchmark.name,
            remedy="Raise the fraction, or check the annotations.",
        )
    if out_dir:
        claim(out_dir, WRITTEN)
    seed_everything(seed)
    model.name_classes(benchmark.classes)
    model.to(device).train()
    steps_per_epoch = -(-len(items) // recipe.batch_size)
    epochs = max(recipe.epochs, -(-recipe.min_steps // steps_per_epoch))
    total = epochs * steps_per_epoch
    optimizer = make_optimizer(model, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, total, recipe)
    )
    average = _Average(model, recipe.ema) if recipe.ema else None
    generator = torch.Generator().manual_seed(seed)
    inertial = benchmark.inertial.of(benchmark.feature_spec.columns(stream)) if benchmark.inertial else None
    augment = Augment(items, inertial, generator, exchange=recipe.exchange, rotate=recipe.rotate)
    history, elapsed, first = [], 0.0, 0
    state_path = Path(out_dir) / "training.pt" if out_dir else None
    identity = [model.spec, asdict(recipe), seed, list(recordings), stream, benchmark.data_hash]
    if state_path and is_ours(state_path):
        state = read_checkpoint(state_path)
        if state.get("identity") == repr(identity):
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
            if average:
                average.restore(state["average"])
            generator.set_state(state["generator"])
            torch.set_rng_state(state["torch_rng"])
            history, elapsed, first = state["history"], state["elapsed"], state["epoch"]

    saved = time.monotonic()
    bar = tqdm(
        range(first, epochs), disable=not progress, unit="epoch", mininterval=5, initial=first, total=epochs
    )
    for epoch in bar:
        started = time.perf_counter()
        sums: dict[str, float] = {}
        order = torch.randperm(len(items), generator=generator).tolist()
        for at in range(0, len(order), recipe.batch_size):
            crops = [
                augment(crop(items[i], recipe.max_steps, generator, shrink=recipe.shrink))
                for i in order[at : at + recipe.batch_size]
            ]
            batch = collate(crops).to(device)
            if recipe.feature_noise:
                batch.features.add_(torch.randn_like(batch.features) * recipe.feature_noise)
            losses = training_step(model, batch, optimizer, recipe)
            schedule.step()
            if average:
                average.update(schedule.last_epoch)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
        elapsed += time.perf_counter() - started
        history.append(
            {
                "epoch": epoch + 1,
                "step": schedule.last_epoch,
                "seconds": elapsed,
                "learning_rate": schedule.get_last_lr()[0],
            }
            | {name: value / steps_per_epoch for name, value in sums.items()}
        )
        bar.set_postfix_str(f"loss {history[-1]['total']:.3f}")
        if on_epoch:
            with average.in_place_of(model) if average else nullcontext():
                on_epoch(epoch + 1, elapsed, model)
            model.train()
        if state_path and time.monotonic() - saved > 60:
            state = {
                "identity": repr(identity),
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "average": average and average.state,
                "generator": generator.get_state(),
                "torch_rng": torch.get_rng_state(),
                "history": history,
                "elapsed": elapsed,
                "epoch": epoch + 1,
            }
            write_torch(state_path, state)
            saved = time.monotonic()
    if average:
        model.load_state_dict(average.state)
    model.eval()
    table, checkpoint = pd.DataFrame(history), None
    if out_dir:
        checkpoint = save_model(
            Path(out_dir) / "model.pt",
            Trained(model.deployed, benchmark.classes, benchmark.feature_spec, stream),
        )
        write_text(Path(out_dir) / "history.csv", table.to_csv(index=False))
        remove_replaceable(state_path)
    return TrainResult(
        model=model.deployed, history=table, steps=total, seconds=elapsed, checkpoint=checkpoint
    )


def detect_all(
    model: Detector,
    benchmark: Benchmark,
    recordings: list[str],
    *,
    stream: str | None = None,
    device: str | None = None,
) -> pd.DataFrame:
    """Detections of several recordings in one table; each recording is run alone, at its own length."""
    return _in_one_table(model, model.detect, benchmark, recordings, stream, device, empty_detections())


def propose_all(
    model: Detector,
    benchmark: Benchmark,
    recordings: list[str],
    *,
    stream: str | None = None,
    device: str | None = None,
) -> pd.DataFrame:
    """Class-agnostic proposals of several recordings in one table, at most 100 each."""
    return _in_one_table(
        model, model.propose, benchmark, recordings, stream, device, empty_detections().drop(columns="label")
    )


def _in_one_table(model, find, benchmark, recordings, stream, device, empty):
    device = checked_device(device) if device else default_device()
    model.to(device).eval()
    tables = [
        find(collate([make_item(benchmark, recording, stream)]).to(device))[0] for recording in recordings
    ]
    tables = [table for table in tables if len(table)]
    return pd.concat(tables, ignore_index=True) if tables else empty
