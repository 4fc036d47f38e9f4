"""THUMOS14 and ActivityNet v1.3: annotations in their published forms, features from the user's own folder.

    <data root>/thumos14/thumos14.json
    <data root>/thumos14/features/<recording>.npy            both streams, or
    <data root>/thumos14/features/{rgb,flow}/<recording>.npy
    <data root>/thumos14/features/spec.json                  optional: other streams, widths or strides

Sources: Jiang et al., THUMOS Challenge 2014; Caba Heilbron et al., ActivityNet, CVPR 2015. Feature conventions:
ActionFormer (ECCV 2022): I3D, 16-frame windows every 4 frames; ActivityNet features are resized to a fixed length.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from tal_lib.data.annotations import AnnotationFile, read_annotations
from tal_lib.data.benchmark import Benchmark, FeatureSpec
from tal_lib.data.features import load_features, resize
from tal_lib.errors import TalError
from tal_lib.files import digest

RESIZED_STEPS = 192  # of ActivityNet


def read_spec(folder: Path, default: dict) -> dict:
    """`spec.json` of a feature folder over the default: `streams` {name: width} and `stride_frames`,
    `window_frames`, or `stride_s`, `window_s`, or `resize` (steps); `fps` and `backbone` say how
    they were made."""
    path = folder / "spec.json"
    if not path.is_file():
        return default
    try:
        spec = json.loads(path.read_text())
        unknown = set(spec) - {
            "streams",
            "stride_frames",
            "window_frames",
            "stride_s",
            "window_s",
            "resize",
            "fps",
            "backbone",
        }
        if unknown:
            raise TalError(
                f"unknown entry {sorted(unknown)[0]!r}", where=path, remedy="See tal_lib/data/videos.py."
            )
        if not all(int(width) > 0 for width in spec.get("streams", {"one": 1}).values()):
            raise ValueError("stream widths must be positive")
    except (ValueError, AttributeError, TypeError) as error:
        if isinstance(error, TalError):
            raise
        raise TalError(
            f"not a feature spec ({error})", where=path, remedy="See tal_lib/data/videos.py."
        ) from None
    timing = {"stride_frames", "window_frames", "stride_s", "window_s", "resize"}
    return (
        {key: value for key, value in default.items() if key == "streams"} if timing & set(spec) else default
    ) | spec


def load_thumos14(root: Path) -> Benchmark:
    """THUMOS14: 200 validation videos are `train`, 212 test videos `test`; 20 classes."""
    path = root / "thumos14" / "thumos14.json"
    content = read_annotations(path, repair=True)
    content.recordings["split"] = content.recordings.split.replace({"validation": "train"})
    spec = read_spec(
        root / "thumos14" / "features",
        {"streams": {"rgb": 1024, "flow": 1024}, "stride_frames": 4, "window_frames": 16},
    )
    return _benchmark(
        "thumos14", (0.3, 0.4, 0.5, 0.6, 0.7), content, spec, root / "thumos14" / "features", path
    )


def load_activitynet(root: Path) -> Benchmark:
    """ActivityNet v1.3: 10,024 training videos, 4,926 validation videos (the field's test set); 200 classes.

    Reads `activitynet.json` (the official or ActionFormer's form) if there, else the TSP release's two tables.
    """
    folder = root / "activitynet"
    path = folder / "activitynet.json"
    if path.is_file():
        content = read_annotations(path, repair=True)
        keep = content.recordings.split != "test"  # its labels were never published
        segments = content.segments[content.segments.recording.isin(content.recordings.recording[keep])]
        content = AnnotationFile(content.recordings[keep].reset_index(drop=True), segments, content.repairs)
    else:
        files = [folder / f"activitynet_v1-3_{part}_tsp_groundtruth.csv.gz" for part in ("train", "valid")]
        parts = [
            read_annotations(file, repair=True, split=split)
            for file, split in zip(files, ("train", "validation"))
        ]
        content = AnnotationFile(
            *(
                pd.concat([getattr(part, name) for part in parts], ignore_index=True)
                for name in ("recordings", "segments")
            ),
            parts[0].repairs + parts[1].repairs,
        )
        path = folder
    content.recordings["split"] = content.recordings.split.replace({"validation": "test"})
    spec = read_spec(folder / "features", {"streams": {"tsp": 512}, "resize": RESIZED_STEPS})
    return _benchmark(
        "activitynet", tuple(np.round(np.arange(0.5, 1.0, 0.05), 2)), content, spec, folder / "features", path
    )


def load_folder(folder: Path) -> Benchmark:
    """Anybody's videos: `annotations.json` (ActivityNet's or ActionFormer's form) and `features/` with their `spec.json`, as `tal extract`
    writes them. Subsets called validation are the test set where there is no other."""
    content = read_annotations(folder / "annotations.json", repair=True)
    if "test" not in set(content.recordings.split):
        content.recordings["split"] = content.recordings.split.replace({"validation": "test"})
    known = folder / "features" / "spec.json"
    if not known.is_file():
        raise TalError(
            "file not found",
            where=known,
            remedy="Extract features with `tal extract`, or describe yours there.",
        )
    return _benchmark(
        folder.name, (0.3, 0.4, 0.5, 0.6, 0.7), content, read_spec(known.parent, {}), known.parent, folder
    )


def _benchmark(name, tious, content, spec, folder, where):
    recordings = content.recordings.copy()
    if "resize" in spec:
        recordings["stride_s"] = recordings["window_s"] = recordings.duration / spec["resize"]
        stride_s = window_s = float(recordings.stride_s.median())
    elif "stride_s" in spec:
        stride_s, window_s = spec["stride_s"], spec.get("window_s", spec["stride_s"])
    else:
        fps = recordings.fps.fillna(30.0)
        recordings["stride_s"], recordings["window_s"] = (
            spec["stride_frames"] / fps,
            spec["window_frames"] / fps,
        )
        stride_s, window_s = spec["stride_frames"] / 30.0, spec["window_frames"] / 30.0
    feature_spec = FeatureSpec(stride_s=stride_s, window_s=window_s, streams=dict(spec["streams"]))

    def load(recording):
        if not folder.is_dir():
            raise TalError(
                f"no features: folder not found, asked for recording {recording}",
                where=folder,
                remedy=f"Put the features there; `tal data check {name}` lists what is missing.",
            )
        features = load_features(folder, recording, feature_spec)
        return resize(features, spec["resize"]) if "resize" in spec else features

    files = (
        sorted(
            (str(file.relative_to(folder)), file.stat().st_size)
            for file in folder.rglob("*")
            if file.is_file() and not file.name.startswith(".")
        )
        if folder.is_dir()
        else []
    )
    return Benchmark(
        name=name,
        classes=sorted(content.segments.label.unique()),
        tious=tious,
        feature_spec=feature_spec,
        recordings=recordings,
        annotations=content.segments,
        load_features=load,
        source_hash=digest(name, files),
        where=str(where),
        notes=content.repairs,
        ends_checked=False,
    )
