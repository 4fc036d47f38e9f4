"""One video file → its detections: a table, the field's JSON, a picture of the timeline, and the video with the actions drawn in."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from tal_lib.data.batches import collate, unannotated
from tal_lib.errors import TalError
from tal_lib.evaluation import write_detections
from tal_lib.export import ABOUT, Exported
from tal_lib.models import Detector
from tal_lib.training import load_model
from tal_lib.video.backbones import WINDOW, Backbone, backbone_for
from tal_lib.video.extract import features_of
from tal_lib.video.frames import Reader, write_video
from tal_lib.video.live import sampling_of
from tal_lib.video.overlay import draw_action


@dataclass(frozen=True)
class Ready:
    """A model and what its features are."""

    model: Detector
    classes: tuple[str, ...]
    spec: object  # FeatureSpec


def ready(path: str | Path) -> Ready:
    """A model from a checkpoint (`model.pt`) or the folder of an exported one."""
    path = Path(path)
    if path.is_dir() and (path / ABOUT).is_file():
        model = Exported(path)
        return Ready(model, model.class_names, model.feature_spec)
    trained = load_model(path)
    if trained.stream:
        raise TalError(
            f"it was trained on stream {trained.stream} alone",
            where=path,
            remedy="Use one trained on all streams.",
        )
    return Ready(trained.model, trained.classes, trained.feature_spec)


def detect(
    video: str | Path, chosen: Ready, extractor: Backbone | None = None, window: int = WINDOW
) -> tuple[pd.DataFrame, Reader]:
    """Detections (`recording, start, end, label, score`; seconds, best first) of a video, and its reader."""
    extractor = extractor or backbone_for(chosen.spec)
    features, reader = features_of(video, extractor, sampling_of(chosen.spec, window))
    if features.shape[1] != chosen.spec.dim:
        raise TalError(
            f"{extractor.name} gives {features.shape[1]} columns, the model takes {chosen.spec.dim}",
            where=video,
            remedy="Name the backbone that the model was trained on.",
        )
    item = unannotated(
        Path(video).stem,
        torch.from_numpy(features).T.contiguous(),
        reader.seconds,
        chosen.spec.stride_s,
        chosen.spec.window_s,
        chosen.classes,
    )
    return chosen.model.detect(collate([item]))[0], reader


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
    """`<video>.json`, `<video>.csv`, `<video>.png`, and with `draw` `<video>.mp4`; their paths."""
    from tal_lib.reports import figures, theme

    out, name = Path(out), Path(video).stem
    out.mkdir(parents=True, exist_ok=True)
    write_detections(out / f"{name}.json", table)
    table.to_csv(out / f"{name}.csv", index=False, float_format="%.4f")
    axes = figures.timeline(table.iloc[:0], table, reader.seconds, min_score=threshold)
    written = [out / f"{name}.json", out / f"{name}.csv", theme.save(axes.figure, out / f"{name}.png")]
    if draw:
        fps = round(reader.native_fps or reader.fps)
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
