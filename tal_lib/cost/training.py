"""Cost of a training step, and the time until training reached a good mAP."""

import statistics
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch

from tal_lib.cost.isolated import isolated
from tal_lib.cost.meters import Energy, latency_samples, peak_memory, use_device
from tal_lib.data import collate, load_benchmark, make_item
from tal_lib.data.batches import crop
from tal_lib.models import config
from tal_lib.process.memory import keep_freed
from tal_lib.process.precision import chosen_precision
from tal_lib.provenance import checked_device, device_name, usable_cores
from tal_lib.study import build_model
from tal_lib.training import recipe_for
from tal_lib.training.loop import make_optimizer, make_scaler, training_step
from tal_lib.validation import NotNegative, Threads, validate


@dataclass(frozen=True, kw_only=True)
class TrainingCostRow:
    """One measurement: forward pass, backward pass and update for one batch."""

    model: str
    preset: str
    device: str
    device_name: str
    threads: int
    precision: str
    batch_size: int  # recordings
    crop_steps: int  # of the longest crop
    params: int
    step_s_median: float
    step_s_p10: float
    step_s_p90: float
    step_samples: int
    steps_per_s: float  # 1 / step_s_median
    peak_memory_bytes: int  # of a step, above model, optimizer and data
    state_bytes: int  # weights, gradients and the optimizer's moments
    energy_j: float | None  # joules of one step; None where the machine does not expose it


def profile_training(
    model: str,
    benchmark: str,
    *,
    preset: str = "compact",
    device: str = "cpu",
    threads: int | None = None,
    min_seconds: float = 5.0,
    fold: int = -1,
    options: dict | None = None,
    **recipe,
) -> TrainingCostRow:
    """Measure the training step of a model on the benchmark's recordings, in a fresh process.

    Args:
        fold: cross-validation fold of the benchmark, from 0; −1: the official split.
        options: options of the model.
        recipe: fields of its training recipe, e.g. `batch_size` and `max_steps` to use the same for all
            models.

    Raises:
        DoesNotFit: the step needs more memory than there is.
        TalError: unknown model, option or benchmark.
    """
    plan = recipe_for(model, preset, **recipe)  # raise errors in this process
    config(model, preset, **options or {})
    checked_device(device)
    recipe = recipe | {"precision": chosen_precision(plan.precision, device)}
    threads = validate(Threads | None, threads, name="threads")
    min_seconds = validate(NotNegative, min_seconds, name="min_seconds")
    load_benchmark(benchmark, fold=fold)
    row = isolated(
        _measure,
        f"training {model}",
        threads or usable_cores(),
        name=model,
        benchmark=benchmark,
        fold=fold,
        preset=preset,
        device=device,
        min_seconds=min_seconds,
        options=options or {},
        recipe=recipe,
    )
    return TrainingCostRow(**row | {"device_name": device_name(device)})


def _measure(name, benchmark, fold, preset, device, threads, min_seconds, options, recipe):
    torch.set_num_threads(threads)
    use_device(device)
    data, plan = load_benchmark(benchmark, fold=fold), recipe_for(name, preset, **recipe)
    model = build_model(data, name, preset=preset, options=options).to(device).train()
    model.name_classes(data.classes)
    optimizer = make_optimizer(model, plan)
    items = [make_item(data, recording) for recording in data.recordings("train")]
    generator = torch.Generator().manual_seed(0)
    batches = [
        collate(
            [
                crop(item, plan.max_steps, generator, shrink=plan.shrink)
                for item in items[at : at + plan.batch_size]
            ]
        ).to(device)
        for at in range(0, len(items) - plan.batch_size + 1, plan.batch_size)
    ]
    batches.sort(
        key=lambda batch: -batch.features.shape[2]
    )  # the largest first: it determines the peak memory
    scaler = make_scaler(plan, device)
    training_step(model, batches[-1], optimizer, plan, scaler)  # allocates the optimizer's moments
    turn = iter(range(10**9))
    step = lambda: training_step(model, batches[next(turn) % len(batches)], optimizer, plan, scaler)
    peak = peak_memory(step, device)
    if device == "cpu":
        keep_freed(peak)
    with Energy(device) as energy:
        samples = latency_samples(
            step, device, min_seconds=min_seconds, least=len(batches), max_seconds=4 * min_seconds, warm=True
        )
    params = sum(parameter.numel() for parameter in model.parameters())
    return asdict(
        TrainingCostRow(
            model=name,
            preset=preset,
            device=device,
            device_name="",
            threads=threads,
            precision=plan.precision,
            batch_size=plan.batch_size,
            crop_steps=max(batch.features.shape[2] for batch in batches),
            params=params,
            step_s_median=statistics.median(samples),
            step_s_p10=float(np.percentile(samples, 10)),
            step_s_p90=float(np.percentile(samples, 90)),
            step_samples=len(samples),
            steps_per_s=1 / statistics.median(samples),
            peak_memory_bytes=peak,
            state_bytes=4 * 4 * params,
            energy_j=None if energy.joules is None else energy.joules / len(samples),
        )
    )


@dataclass(frozen=True)
class Milestones:
    """Times at which training reached certain mAPs. Seconds count training alone, without evaluation."""

    best_epoch: int
    best_s: float  # until the best of the evaluated epochs
    best_map: float
    final_map: float
    # until 95 % of the final mAP was first reached, interpolated between evaluated epochs
    near_final_s: float
    total_s: float


def milestones(curve: pd.DataFrame, share: float = 0.95) -> Milestones:
    """Milestones of a training curve `epoch, seconds, map` (one row per evaluated epoch).

    An untrained model counts as mAP 0 at 0 s.
    """
    curve = curve.sort_values("epoch")
    best, last = curve.loc[curve["map"].idxmax()], curve.iloc[-1]
    seconds, maps = np.r_[0.0, curve.seconds], np.r_[0.0, curve["map"]]
    after = int(np.flatnonzero(maps[1:] >= share * last["map"])[0])
    low, high = maps[after], maps[after + 1]
    part = 1.0 if high <= low else (share * last["map"] - low) / (high - low)
    return Milestones(
        int(best.epoch),
        float(best.seconds),
        float(best["map"]),
        float(last["map"]),
        float(seconds[after] + part * (seconds[after + 1] - seconds[after])),
        float(last.seconds),
    )
