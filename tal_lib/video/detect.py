"""One video file → its detections: table, JSON, timeline, and optionally the annotated video."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tal_lib.data.batches import collate, unannotated
from tal_lib.data.benchmark import FeatureSpec
from tal_lib.errors import TalError
from tal_lib.evaluation import write_detections
from tal_lib.exported import Exported
from tal_lib.files import write_text
from tal_lib.models import Detector
from tal_lib.models.parts.streamed import Streamed, Windows, windows_for
from tal_lib.models.timeline_prior import TimelinePrior
from tal_lib.training import Trained, load_model
from tal_lib.training.checkpoints import (
    STANDARDISE,
    Statistics,
    is_model_folder,
    read_statistics,
    warn_if_not_stated,
)
from tal_lib.video.backbones import WINDOW, Backbone, backbone_for
from tal_lib.video.extract import features_of
from tal_lib.video.frames import Reader, write_video
from tal_lib.video.live import sampling_of
from tal_lib.video.overlay import draw_action
from tal_lib.writing import claim


@dataclass(frozen=True)
class Ready:
    """A model, its classes and the spec of its features."""

    model: Detector
    classes: tuple[str, ...]
    spec: FeatureSpec
    stream: str | None = None  # the model's only stream; None for all streams
    statistics: Statistics | None = None  # that standardise the features; None: they are used as they are

    @classmethod
    def of(cls, trained: Trained) -> "Ready":
        """A model as it was loaded."""
        return cls(trained.model, trained.classes, trained.feature_spec, trained.stream, trained.statistics)

    def prepared(self, features: np.ndarray) -> np.ndarray:
        """Features (T, D) as the model takes them: standardised if it has statistics."""
        return features if self.statistics is None else self.statistics.standardised(features)


def ready(path: str | Path, *, trust: bool = False) -> Ready:
    """A model from a checkpoint (`model.pt`), from a model folder, or from the folder of an exported model.

    Prints a warning if the model does not say whether features were standardised.

    Args:
        trust: also load an exported graph that is a program (pt2, TorchScript).

    Raises:
        TalError: missing or damaged, or an exported model without the statistics that belong to it.
    """
    path = Path(path)
    if path.is_dir() and not is_model_folder(path):
        model, place = Exported(path, trust=trust), path / STANDARDISE
        given = place.is_file() or bool(model.standardised)
        statistics = read_statistics(place, model.input_dim) if given else None
        warn_if_not_stated(given or model.standardised is not None, path)
        return Ready(model, model.class_names, model.feature_spec, model.stream, statistics)
    trained = load_model(path)
    warn_if_not_stated(trained.statistics_stated, path)
    return Ready.of(trained)


def require_all_streams(chosen: Ready, where: str | Path) -> None:
    """Refuse a model of one stream: features from a video have all streams.

    Raises:
        TalError: the model takes one stream only.
    """
    if chosen.stream:
        raise TalError(
            f"it was trained on stream {chosen.stream} alone",
            where=where,
            remedy="Use a model that was trained on all streams.",
        )


def extractor_for(chosen: Ready, named: Backbone | None, where: str | Path) -> Backbone:
    """The backbone that a user named, or the one whose features the model takes.

    Raises:
        TalError: none is named, and no backbone has the streams of the model.
    """
    if named is not None:
        return named
    try:
        return backbone_for(chosen.spec)
    except TalError as error:
        remedy = (
            "If it was trained on features of videos, name their backbone with --backbone. "
            "Else give `tal detect` a feature file or a folder of them, not a video."
        )
        raise TalError(error.problem, where=where, remedy=remedy) from None


def require_windows(chosen: Ready, where: str | Path) -> None:
    """Refuse a model that only works on whole recordings.

    Raises:
        TalError: the graph of an exported model has decoded points, which cannot be joined; the floor counts
            steps from the start of the recording.
    """
    if isinstance(chosen.model, Exported | TimelinePrior):
        kind = "an exported model" if isinstance(chosen.model, Exported) else "timeline_prior"
        raise TalError(
            f"{kind} needs the whole recording",
            where=where,
            remedy="Leave out --windowed"
            + (", or name what was exported (model.pt or its folder)." if "exported" in kind else "."),
        )


def detect(
    video: str | Path,
    chosen: Ready,
    extractor: Backbone | None = None,
    window: int = WINDOW,
    merged: bool = False,
) -> tuple[pd.DataFrame, Reader]:
    """(detections, reader) of a video. Detections: `recording, start, end, label, score`; seconds, best
    first. merged: see `localized`.

    Raises:
        TalError: the backbone's features do not fit the model, or the video cannot be read.
    """
    extractor = extractor_for(chosen, extractor, video)
    features, reader = features_of(video, extractor, sampling_of(chosen.spec, window))
    if features.shape[1] != chosen.spec.dim:
        raise TalError(
            f"{extractor.name} gives {features.shape[1]} columns, the model takes {chosen.spec.dim}",
            where=video,
            remedy="Name the backbone that the model was trained on.",
        )
    return localized(chosen, features, Path(video).stem, reader.seconds, merged=merged), reader


def localized(
    chosen: Ready,
    features: np.ndarray,
    name: str,
    seconds: float,
    windows: Windows | None = None,
    *,
    merged: bool = False,
) -> pd.DataFrame:
    """The detections of a recording with features (T, D), unprepared.

    In windows where that gives the answer of the whole recording (`models.parts.streamed`), so that the
    network's memory does not grow with the recording; the other models see all of it.

    Args:
        windows: those of `windows_for` if None.
        merged: run the other models in windows too. One NMS merges their candidates, so that detections may
            differ from those of the whole recording.

    Raises:
        TalError: `merged` of a model that `require_windows` refuses.
    """
    model, steps = chosen.model, chosen.prepared(features)
    times = chosen.spec.stride_s, chosen.spec.window_s
    if merged:
        require_windows(chosen, name)
    if not isinstance(model, Exported):  # its graph has decoded points, which cannot be joined
        windows = windows or windows_for(model)
        if (windows.joined or merged) and len(steps) > windows.window:
            streamed = Streamed(model, chosen.classes, windows)
            for step in steps:
                streamed.push(step)
            return streamed.finish(name, seconds, *times)
    item = unannotated(name, torch.from_numpy(steps).T.contiguous(), seconds, *times, chosen.classes)
    return model.detect(collate([item]))[0]


def claim_outputs(
    video: str | Path, out: str | Path, *, draw: bool = False, model: str | Path | None = None
) -> Path:
    """Check, before any work, that `write_all` may write its files and replaces neither the video nor the
    model.

    Creates and returns the folder.
    """
    suffixes = (".json", ".csv", ".png", *((".mp4",) if draw else ()))
    sources = [Path(video), *([Path(model)] if model else [])]
    return claim(out, [Path(video).stem + suffix for suffix in suffixes], sources=sources)


def write_all(
    video: str | Path,
    table: pd.DataFrame,
    reader: Reader,
    classes: tuple[str, ...],
    out: str | Path,
    *,
    draw: bool = False,
    threshold: float = 0.25,
) -> list[Path]:
    """Write `<video>.json`, `.csv` and `.png`, and with `draw` also `.mp4`. Returns their paths."""
    from tal_lib.reports import escape, figures, theme

    out, name = claim_outputs(video, out, draw=draw), Path(video).stem
    write_detections(out / f"{name}.json", table)
    write_text(out / f"{name}.csv", escape.csv_table(table).to_csv(index=False, float_format="%.4f"))
    axes = figures.timeline(table.iloc[:0], table, reader.seconds, min_score=threshold)
    picture = theme.save(axes.figure, out / f"{name}.png", f"Detected actions in {name}, by class and time.")
    written = [out / f"{name}.json", out / f"{name}.csv", picture]
    if draw:
        fps = max(1, round(reader.native_fps or reader.fps))  # a time lapse may have less than one
        strong = table[table.score >= threshold].sort_values("score", ascending=False)

        def drawn():
            for index, picture in enumerate(Reader(video, fps)):
                time = index / fps
                here = strong[(strong.start <= time) & (time < strong.end)]
                yield draw_action(
                    picture,
                    *((here.label.iloc[0], here.score.iloc[0]) if len(here) else (None, 0.0)),
                    classes,
                )

        written.append(write_video(out / f"{name}.mp4", drawn(), fps))
    return written
