"""Build → train → detect → evaluate one model; all studies use these functions.

    run = train_and_score(load_benchmark("synthetic"), "window_cnn", fraction=0.5, seed=3)
    run.scores                 # mAP at each tIoU of the benchmark, on its test recordings

This module connects `training` and `evaluation`, which do not import each other. `cost`, `sweeps`, `video`
and `cli` use it. Its parts can be used alone: `build_model` for an untrained model, `Scored` for a trained
model, `late_fusion` for models of one stream each. Detections, proposals and scores are computed on first
use, and cached.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from tal_lib import evaluation, models
from tal_lib.data import Benchmark, limited_subset
from tal_lib.data.annotation_budget import partly_annotated
from tal_lib.data.subsets import subset_order
from tal_lib.models import Detector
from tal_lib.models.parts.fusion import LateFusion
from tal_lib.training import (
    Distillation,
    Distilled,
    Recipe,
    TrainResult,
    detect_all,
    fit,
    load_model,
    propose_all,
    recipe_for,
    seed_everything,
)

MOST_GROUPS = 50  # of people that are left out in turn


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A trained model on the recordings of one split: its detections, and their scores."""

    benchmark: Benchmark
    model: Detector
    stream: str | None = None  # the feature stream that the model reads; None: all
    device: str | None = None
    split: str | None = "test"  # None: all recordings
    tested: list[str] | None = None  # only these recordings of the split

    @cached_property
    def truth(self) -> pd.DataFrame:
        """The annotated segments: recording, start, end (s), label."""
        return self.benchmark.annotations_of(self._tested)

    @cached_property
    def detections(self) -> pd.DataFrame:
        """Detections: recording, start, end (s), label, score."""
        return self._on_every_recording(detect_all)

    @cached_property
    def proposals(self) -> pd.DataFrame:
        """Class-agnostic proposals: recording, start, end (s), score; at most 100 per recording."""
        return self._on_every_recording(propose_all)

    @cached_property
    def scores(self) -> pd.Series:
        """mAP, 0 to 1, at each tIoU threshold of the benchmark."""
        return evaluation.mean_average_precision(self.truth, self.detections, self.benchmark.tious)

    @cached_property
    def by_class(self) -> pd.DataFrame:
        """Average precision, 0 to 1: label, tiou, ap."""
        return evaluation.average_precision(self.truth, self.detections, self.benchmark.tious)

    @cached_property
    def by_person(self) -> pd.DataFrame:
        """What each tested person (or recording, or group of these) adds to the avg mAP.

        Columns: person, segments, without, score. More than 50 people are put into 50 groups.
        """
        groups = {recording: self.benchmark.group(recording) for recording in self._tested}
        if len(names := sorted(set(groups.values()))) > MOST_GROUPS:
            place = {name: f"group {index % MOST_GROUPS:02d}" for index, name in enumerate(names)}
            groups = {recording: place[name] for recording, name in groups.items()}
        return evaluation.by_person(self.truth, self.detections, self.benchmark.tious, groups)

    @cached_property
    def by_level(self) -> pd.DataFrame:
        """Scores, 0 to 1, at each level of the benchmark's class taxonomy: level, avg_map, mean_precision.

        Mean precision is by time (see `evaluation.taxonomy`). Empty if the benchmark has no taxonomy.
        """
        rows = []
        if self.benchmark.taxonomy is not None:
            taxonomy = evaluation.read_taxonomy(self.benchmark.taxonomy, self.benchmark.classes)
            for level in (*taxonomy.levels, "class"):
                about = (self.truth, self.detections)
                avg_map = evaluation.map_at_level(*about, self.benchmark.tious, taxonomy, level).mean()
                rows.append((level, float(avg_map), evaluation.mean_precision(*about, taxonomy, level)))
        return pd.DataFrame(rows, columns=["level", "avg_map", "mean_precision"])

    @property
    def parameters(self) -> int:
        """Number of the model's parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def _tested(self):
        return self.benchmark.recordings(self.split) if self.tested is None else self.tested

    def _on_every_recording(self, run):
        return run(self.model, self.benchmark, self._tested, stream=self.stream, device=self.device)


@dataclass(frozen=True, kw_only=True)
class Run(Scored):
    """A model, and the training that produced it."""

    recordings: list[str]  # training recordings
    recipe: Recipe
    results: tuple[TrainResult, ...]  # one result; for late fusion one per stream

    def on(self, benchmark: Benchmark, tested: list[str] | None = None) -> Scored:
        """The same model on the test recordings of another benchmark (see `tal_lib.data.transfer`)."""
        return Scored(
            benchmark=benchmark.standardised_as(self.benchmark),
            model=self.model,
            stream=self.stream,
            device=self.device,
            tested=tested,
        )

    @property
    def result(self) -> TrainResult:
        """The result of the training; for late fusion that of the first stream."""
        return self.results[0]

    @property
    def checkpoints(self) -> list[Path]:
        """The files that were written."""
        return [result.checkpoint for result in self.results if result.checkpoint]


def train_and_score(
    benchmark: Benchmark,
    model: str,
    *,
    preset: str = "compact",
    options: dict | None = None,
    recipe: Recipe | dict | None = None,
    fraction: float = 1.0,
    seed: int = 0,
    subset_seed: int | None = None,
    people: float = 1.0,
    annotated: float = 1.0,
    recordings: list[str] | None = None,
    tested: list[str] | None = None,
    stream: str | None = None,
    teacher: Detector | str | Path | None = None,
    distillation: Distillation | None = None,
    out_dir: str | Path | None = None,
    device: str | None = None,
    progress: bool | None = None,
    on_epoch: Callable[[int, float, Detector], None] | None = None,
) -> Run:
    """Build a model, train it, and return it with its detections in the benchmark's test recordings.

    Args:
        options: of the model; recipe: a complete training recipe, or the fields that differ from the model's
            recipe.
        fraction: fraction of the training recordings; seed: of the initial weights and the training.
        subset_seed: of the subset sample (None: `seed`); recordings: train on these instead of a sample.
        people: fraction of the training people that the sample is drawn from.
        annotated: fraction of the segments of each training recording that is annotated: a connected part of
            its timeline (`partly_annotated`); the rest is cut away.
        tested: test on these recordings instead of the whole test split.
        stream: read the columns of one feature stream only.
        teacher: a trained model, or its checkpoint, to distil from; `distillation`: the loss weights.
        out_dir, device, progress, on_epoch: as in `fit`.

    Raises:
        TalError: what `build`, `limited_subset`, `recipe_for` and `fit` refuse.
    """
    sample = seed if subset_seed is None else subset_seed
    benchmark, recordings = labelled_part(
        benchmark, fraction, sample, people=people, annotated=annotated, recordings=recordings
    )
    plan = recipe if isinstance(recipe, Recipe) else recipe_for(model, preset, **(recipe or {}))
    detector = build_model(benchmark, model, preset=preset, options=options, stream=stream, seed=seed)
    if teacher is not None:  # after the model: both use the random generator
        trained = teacher if isinstance(teacher, Detector) else load_model(teacher).model
        detector = Distilled(detector, trained, distillation or Distillation())
    result = fit(
        detector,
        benchmark,
        recordings,
        plan,
        seed,
        out_dir,
        stream=stream,
        device=device,
        progress=progress,
        on_epoch=on_epoch,
    )
    return Run(
        benchmark=benchmark,
        model=result.model,
        stream=stream,
        device=device,
        tested=tested,
        recordings=recordings,
        recipe=plan,
        results=(result,),
    )


def labelled_part(
    benchmark: Benchmark,
    fraction: float,
    sample: int,
    *,
    people: float = 1.0,
    annotated: float = 1.0,
    recordings: list[str] | None = None,
) -> tuple[Benchmark, list[str]]:
    """(the benchmark as a model that learns from a part of its labels sees it, the training recordings).

    Args:
        sample: seed of the subset sample. The other arguments are those of `train_and_score`.

    Raises:
        TalError: what `limited_subset` and `partly_annotated` refuse.
    """
    if recordings is None:
        recordings = limited_subset(benchmark, fraction, sample, people)
    return partly_annotated(benchmark, recordings, annotated, sample).learning_from(recordings), recordings


def build_model(
    benchmark: Benchmark,
    model: str,
    *,
    preset: str = "compact",
    options: dict | None = None,
    stream: str | None = None,
    seed: int = 0,
) -> Detector:
    """A model for a benchmark's classes and features (of one stream if given), with initial weights by
    `seed`."""
    columns = benchmark.feature_spec.columns(stream)
    seed_everything(seed)
    return models.build(
        model,
        input_dim=columns.stop - columns.start,
        num_classes=len(benchmark.classes),
        preset=preset,
        **(options or {}),
    )


def late_fusion(runs: dict[str, Run], weights: dict[str, float] | None = None) -> Run:
    """The late fusion of several runs, one per stream, as one run.

    Scores are averaged before suppression, by `weights` (equal if None).
    """
    first = next(iter(runs.values()))
    spec = first.benchmark.feature_spec
    model = LateFusion(
        {stream: run.model for stream, run in runs.items()},
        {stream: spec.columns(stream) for stream in runs},
        weights,
    )
    return Run(
        benchmark=first.benchmark,
        model=model,
        device=first.device,
        tested=first.tested,
        recordings=first.recordings,
        recipe=first.recipe,
        results=tuple(result for run in runs.values() for result in run.results),
    )


def floor(benchmark: Benchmark) -> float:
    """avg mAP, 0 to 1, of `timeline_prior` on the test recordings: what is reached without any feature.

    Features are not read, so they need not be there.
    """
    width = benchmark.feature_spec.dim
    blind = Benchmark(
        name=benchmark.name,
        classes=benchmark.classes,
        tious=benchmark.tious,
        feature_spec=benchmark.feature_spec,
        recordings=benchmark.table(),
        annotations=benchmark.annotations(),
        load_features=lambda recording: np.zeros((1, width), np.float32),
        source_hash="",
        ends_checked=False,
    )
    learned = subset_order(blind, 0)  # all, whatever lists of subsets the benchmark's name stands for
    capacity = {"capacity": max(1, len(blind.annotations_of(learned)))}
    run = train_and_score(
        blind, "timeline_prior", options=capacity, recordings=learned, device="cpu", progress=False
    )
    return float(run.scores.mean())
