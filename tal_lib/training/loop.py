"""Training: one loop for every model."""

import math
import random
import sys
import time
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from tal_lib.data.augment import Augment
from tal_lib.data.batches import Batch, Item, batches, crop, make_item, within_features
from tal_lib.data.benchmark import Benchmark
from tal_lib.data.tables import empty_detections
from tal_lib.errors import TalError
from tal_lib.files import write_text
from tal_lib.models import Detector
from tal_lib.models.parts.detector import in_float32
from tal_lib.process import progress as bars
from tal_lib.process.precision import chosen_precision
from tal_lib.provenance import checked_device, default_device
from tal_lib.training.checkpoints import Statistics, Trained, save_model
from tal_lib.training.recipes import Recipe
from tal_lib.training.state import Average, TrainingCode, TrainingState, weights_digest
from tal_lib.validation import unknown_name
from tal_lib.writing import claim, is_ours, remove_replaceable

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}  # precision -> type under torch.autocast
# A smaller scale of the loss means that the gradients are not finite at any scale, as in fairseq (0.0001)
LEAST_SCALE = 1e-4
WRITTEN = ("model.pt", "history.csv", "training.pt")  # by `fit`; training.pt is removed when training ends


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """The result of `fit`; the model holds the trained (averaged) weights."""

    model: Detector
    history: pd.DataFrame  # a row per epoch: epoch, step, seconds, learning_rate, mean of each loss
    steps: int  # optimizer steps
    seconds: float  # wall time of training, including interrupted runs
    checkpoint: Path | None  # the saved model


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch. Call it before `build`: the initial weights depend on the seed."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict]:
    """Parameter groups of a recipe: those that decay, those that do not, and the same of its slow modules.

    By default matrices and kernels decay; biases, norms, scales and learned tokens do not.

    Raises:
        TalError: the model has no module of a name in `slow`.
    """
    names = {name for path, _ in model.named_modules() for name in path.split(".") if name}
    for name in recipe.slow:
        if name not in names:
            raise unknown_name(name, sorted(names), where="recipe, slow", name="module")
    groups = {(slow, plain): [] for slow in (False, True) for plain in (False, True)}
    for path, module in model.named_modules():
        slow = not set(recipe.slow).isdisjoint(path.split("."))
        for name, parameter in module.named_parameters(recurse=False):
            plain = (
                name.startswith("bias")
                or parameter.ndim < 2
                or isinstance(module, nn.LayerNorm | nn.GroupNorm)
            )
            groups[slow, plain and recipe.decayed == "matrices"].append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": 0.0 if plain else recipe.weight_decay,
            "lr": recipe.learning_rate * (recipe.slow_factor if slow else 1.0),
        }
        for (slow, plain), parameters in groups.items()
        if parameters or not slow
    ]


def learning_rate_factor(step: int, total: int, recipe: Recipe) -> float:
    """Factor of the learning rate at a step: linear warm-up, then cosine decay, constant, or in steps."""
    warm = max(1, round(recipe.warmup * total)) if recipe.warmup > 0 else 0
    if step < warm:
        return step / max(1, warm - 1) if recipe.warmup_from_zero else (step + 1) / warm
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "step":
        return recipe.drop_factor ** sum(step >= round(drop * total) for drop in recipe.drops)
    lowest = recipe.min_learning_rate / recipe.learning_rate
    return lowest + (1 - lowest) * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def steps_per_epoch(recordings: int, recipe: Recipe) -> int:
    """Optimizer steps that see every crop of an epoch, but for the rest that `drop_last` leaves out."""
    crops = recordings * recipe.crops
    if recipe.drop_last:
        return max(1, crops // recipe.batch_size)  # too few for a batch make one
    return -(-crops // recipe.batch_size)


def run_in(precision: str, model: Detector, batch: Batch) -> tuple[torch.Tensor, ...]:
    """Run the network on a batch in a recipe's precision. Outputs, and so the losses, are float32."""
    kind = AUTOCAST.get(precision, torch.bfloat16)
    with torch.autocast(batch.features.device.type, kind, enabled=precision in AUTOCAST):
        outputs = model.run(batch)
    return in_float32(outputs)


def make_optimizer(model: Detector, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer of a recipe: Adam or AdamW."""
    make = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return make(parameter_groups(model, recipe), lr=recipe.learning_rate, fused=True)


def make_scaler(recipe: Recipe, device: str) -> torch.amp.GradScaler:
    """The scaler of the loss for a recipe's precision: active in float16, without effect in any other.

    The gradients of float16 are multiplied by the scale, so that small ones do not become zero.
    """
    return torch.amp.GradScaler(device.partition(":")[0], enabled=recipe.precision == "float16")


def training_step(
    model: Detector,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    scaler: torch.amp.GradScaler,
) -> dict[str, torch.Tensor]:
    """Forward pass, backward pass and update on one batch; returns its losses, which are never scaled.

    In float16, gradients that overflow at the present scale of the loss are no error: the scaler leaves out
    the update and halves the scale.

    Raises:
        TalError: the loss is not finite, or the gradients are not finite at any scale. The weights are then
            unchanged.
    """
    losses = model.loss(run_in(recipe.precision, model, batch), batch)
    if not torch.isfinite(losses["total"]):
        raise TalError(
            f"the loss became {float(losses['total'])}",
            where=f"recordings {', '.join(batch.recordings)}",
            remedy="Lower the learning rate, or check these recordings' features."
            + (" float16 overflows at 65,504: try bfloat16." if recipe.precision == "float16" else ""),
        )
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(losses["total"]).backward()
    if recipe.clip_norm:
        scaler.unscale_(optimizer)  # the norm is that of the true gradients
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
    scaler.step(optimizer)
    scaler.update()
    if recipe.precision == "float16" and scaler.get_scale() < LEAST_SCALE:
        raise TalError(
            "the gradients are not finite at any scale of the loss",
            where=f"recordings {', '.join(batch.recordings)}",
            remedy="Choose precision bfloat16 or float32, lower the learning rate, or check the features.",
        )
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
    progress: bool | None = None,
    on_epoch=None,
) -> TrainResult:
    """Train `model` in place on the given recordings.

    Args:
        recordings: ids, e.g. from `limited_subset`; seed: for the order of recordings, crops and dropout.
        out_dir: folder for `model.pt` and `history.csv`; with None nothing is written. If it holds an
            interrupted run (`training.pt`, written at most once a minute), that run is resumed. Model,
            teacher, recipe, data and code must be the same; otherwise training starts anew and prints why.
        stream: train on the columns of one stream only; device: `$TAL_DEVICE`, a CUDA GPU or the CPU if None.
        progress: show a progress bar; None: in a notebook's kernel alone (see `process.progress`).
        on_epoch: called as `on_epoch(epoch, seconds, model)` after each epoch. The model then has its
            averaged weights. The time of the call is not counted. It must not draw random numbers.

    Raises:
        TalError: no recordings, no annotated segment among them, or a loss that is not finite.
    """
    device = checked_device(device) if device else default_device()
    recipe = replace(recipe, precision=chosen_precision(recipe.precision, device))
    if not recordings:
        raise TalError("no training recordings", where=benchmark.name, remedy="Raise the fraction.")
    lazy = not benchmark.in_memory
    items = [make_item(benchmark, recording, stream, lazy=lazy) for recording in recordings]
    if recipe.within_features:
        items = [within_features(item) for item in items]
    if not any(len(item.segments) for item in items):
        raise TalError(
            f"none of the {len(items)} training recordings has an annotated segment",
            where=benchmark.name,
            remedy="Raise the fraction, or check the annotations.",
        )
    statistics = None
    if out_dir:
        claim(out_dir, WRITTEN)
        statistics = Statistics.of(benchmark, stream)
    path = Path(out_dir) / "training.pt" if out_dir else None
    identity = _identity(model, benchmark, recordings, recipe, seed, stream) if path else {}
    code = TrainingCode(_files_outside(model)) if path else None
    seed_everything(seed)
    model.name_classes(benchmark.classes)
    model.to(device).train()
    in_epoch = steps_per_epoch(len(items), recipe)
    epochs = max(recipe.epochs, -(-recipe.min_steps // in_epoch))
    state = _begin(model, recipe, epochs * in_epoch, seed, device)
    inertial = benchmark.inertial.of(benchmark.feature_spec.columns(stream)) if benchmark.inertial else None
    augment = Augment(items, inertial, state.generator, exchange=recipe.exchange, rotate=recipe.rotate)
    if path and is_ours(path):
        if differs := state.load(
            path,
            identity | {"code": code.digest},  # pyright: ignore[reportOptionalMemberAccess]
        ):
            tqdm.write(
                f"{path}: an interrupted training with other {', '.join(differs)}; training starts afresh",
                file=sys.stderr,
            )

    saved = time.monotonic()
    bar = tqdm(
        range(state.epoch, epochs),
        disable=not bars.shown(progress),
        unit="epoch",
        mininterval=1,
        initial=state.epoch,
        total=epochs,
    )
    for epoch in bar:
        started = time.perf_counter()
        sums = _train_epoch(state, benchmark, items, augment, recipe, device)
        state.elapsed += time.perf_counter() - started
        state.epoch = epoch + 1
        state.history.append(
            {
                "epoch": epoch + 1,
                "step": state.schedule.last_epoch,
                "seconds": state.elapsed,
                "learning_rate": state.schedule.get_last_lr()[0],
            }
            | {name: value / in_epoch for name, value in sums.items()}
        )
        bar.set_postfix_str(f"loss {state.history[-1]['total']:.3f}")
        if on_epoch:
            with state.average.in_place_of(model) if state.average else nullcontext():
                on_epoch(epoch + 1, state.elapsed, model)
            model.train()
        if path and time.monotonic() - saved > 60:
            state.save(path, identity | {"code": code.digest})  # pyright: ignore[reportOptionalMemberAccess]
            saved = time.monotonic()
    if state.average:
        model.load_state_dict(state.average.state)
    model.eval()
    table, checkpoint = pd.DataFrame(state.history), None
    if out_dir:
        checkpoint = save_model(
            Path(out_dir) / "model.pt",
            Trained(model.deployed, benchmark.classes, benchmark.feature_spec, stream, statistics),
        )
        write_text(Path(out_dir) / "history.csv", table.to_csv(index=False))
        remove_replaceable(path)  # pyright: ignore[reportArgumentType]
    return TrainResult(
        model=model.deployed,
        history=table,
        steps=epochs * in_epoch,
        seconds=state.elapsed,
        checkpoint=checkpoint,
    )


def _identity(model, benchmark, recordings, recipe, seed, stream) -> dict[str, str]:
    """What must be equal to resume an interrupted training. The model's spec includes a hash of the teacher's
    weights."""
    return {
        "model or teacher": repr(model.spec),
        "initial weights": weights_digest(model),
        "recipe": repr(asdict(recipe)),
        "seed": repr(seed),
        "recordings": repr(list(recordings)),
        "stream": repr(stream),
        "data": benchmark.data_hash,
    }


def _files_outside(model):
    """Source files of the model's classes that are defined outside this library, in a user's file."""
    modules = {type(part).__module__ for part in model.modules()}
    outside = (
        sys.modules[name]
        for name in modules
        if name.partition(".")[0] not in ("tal_lib", "torch", "builtins")
    )
    return [
        Path(module.__file__)  # pyright: ignore[reportArgumentType]
        for module in outside
        if getattr(module, "__file__", None)
    ]


def _begin(model, recipe, steps, seed, device) -> TrainingState:
    """The state of a training before its first step."""
    optimizer = make_optimizer(model, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, steps, recipe)
    )
    average = Average(model, recipe.ema, ramp=recipe.ema_ramp) if recipe.ema else None
    generator = torch.Generator().manual_seed(seed)
    return TrainingState(model, optimizer, schedule, average, generator, make_scaler(recipe, device))


def random_crop(item: Item, recipe: Recipe, generator: torch.Generator) -> Item:
    """A crop of a recording as a recipe asks for it."""
    return crop(
        item,
        recipe.max_steps,
        generator,
        keep=recipe.crop_keep,
        shrink=recipe.shrink,
        length=recipe.crop_length,
        reach=recipe.crop_reach,
        tries=recipe.crop_tries,
    )


def _train_epoch(state, benchmark, items, augment, recipe, device) -> dict[str, float]:
    """Train on every crop of an epoch; returns the sum of each loss over the steps."""
    sums: dict[str, float] = {}
    order = torch.randperm(len(items) * recipe.crops, generator=state.generator).tolist()
    crops = (  # drawn here, in order; read by workers
        [
            augment(random_crop(items[i % len(items)], recipe, state.generator))
            for i in order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        ]
        for step in range(steps_per_epoch(len(items), recipe))
    )
    with closing(batches(crops, benchmark, device)) as prepared:
        for batch in prepared:
            if recipe.feature_noise:
                batch.features.add_(torch.randn_like(batch.features) * recipe.feature_noise)
            if recipe.feature_dropout:
                batch.features.copy_(F.dropout1d(batch.features, recipe.feature_dropout))
            losses = training_step(state.model, batch, state.optimizer, recipe, state.scaler)
            state.schedule.step()
            if state.average:
                state.average.update(state.schedule.last_epoch)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
    return sums


def detect_all(
    model: Detector,
    benchmark: Benchmark,
    recordings: list[str],
    *,
    stream: str | None = None,
    device: str | None = None,
) -> pd.DataFrame:
    """Detections of several recordings in one table. Each recording is processed alone, at full length."""
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
    lazy = not benchmark.in_memory
    items = ([make_item(benchmark, recording, stream, lazy=lazy)] for recording in recordings)
    with closing(batches(items, benchmark, device)) as prepared:
        tables = [find(batch)[0] for batch in prepared]
    tables = [table for table in tables if len(table)]
    return pd.concat(tables, ignore_index=True) if tables else empty
