"""UR Fall Detection: 30 falls and 40 everyday recordings, eight numbers a frame from depth video.

Small. 24 recordings have no event at all. The owners publish a label per frame: −1 not lying, 0 on the way
(falling, lying down, getting up), 1 lying. A run of equal labels 0 or 1 is a segment. No official split, and
people are unknown: five random folds by recording, each with falls and everyday recordings alike.

Source: Kwolek and Kepski, Human fall detection on embedded platform using depth maps and wireless
accelerometer, Computer Methods and Programs in Biomedicine 117(3), 2014. CC BY-NC-SA 4.0: not for commerce.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from tal_lib.data.archive import Archive
from tal_lib.data.benchmark import Benchmark, FeatureSpec
from tal_lib.data.fetching import Source
from tal_lib.data.folds import seeded_folds, with_fold
from tal_lib.data.remarks import Remark
from tal_lib.data.standardise import standardise
from tal_lib.errors import TalError
from tal_lib.files import digest

RATE_HZ = 30
CLASSES = ("transition", "lying")  # labels 0 and 1
TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
FEATURES = (
    "height_to_width",
    "major_to_minor",
    "box_occupancy",
    "max_std",
    "height_to_standing",
    "height",
    "distance_to_floor",
    "share_below_40_cm",
)
FILES = ("urfall-cam0-falls.csv", "urfall-cam0-adls.csv")
SITE = "https://fenix.ur.edu.pl/~mkepski/ds/"
SPEC = FeatureSpec(stride_s=1 / RATE_HZ, window_s=1 / RATE_HZ, streams={"depth": len(FEATURES)})


def _frames(archive) -> pd.DataFrame:
    """All frames: recording, frame, label, features."""
    tables = []
    for name in FILES:
        table = archive.table(name, ["recording", "frame", "label", *FEATURES], str, sep=",")
        try:
            numbers = table.drop(columns="recording").astype(float)
        except ValueError as error:
            raise archive.error(f"{name} cannot be read ({error})") from None
        if not np.isfinite(numbers).all(axis=None) or not numbers.label.isin([-1, 0, 1]).all():
            raise archive.error(f"{name}: a label other than -1, 0 or 1, or a value that is not finite")
        tables.append(table[["recording"]].join(numbers))
    return pd.concat(tables, ignore_index=True)


def _filled(rows: pd.DataFrame) -> pd.DataFrame:
    """The frames of one recording without gaps: features by linear interpolation, labels of the frame
    before."""
    rows = rows.set_index("frame").sort_index()
    rows.index = rows.index.astype(int)
    every = rows.reindex(range(rows.index[0], rows.index[-1] + 1))
    every["label"] = every.label.ffill()
    return every.drop(columns="recording").interpolate("linear")


def label_segments(labels: np.ndarray) -> list[tuple[float, float, str]]:
    """Runs of equal labels 0 or 1, one label a frame, as (start s, end s, class)."""
    edges = np.flatnonzero(np.diff(labels)) + 1
    return [
        (first / RATE_HZ, last / RATE_HZ, CLASSES[int(labels[first])])
        for first, last in zip([0, *edges], [*edges, len(labels)])
        if labels[first] >= 0
    ]


def load(root: Path) -> Benchmark:
    """All 70 recordings; there is no official split, so fold 0 stands for it."""
    return _load_file(Path(root) / SOURCE.file)


def _load_file(path, name=None) -> Benchmark:
    with Archive(path, name, remedy=SOURCE.remedy) as archive:
        frames = _frames(archive)
    features, segments, notes = {}, [], []
    for recording, rows in frames.groupby("recording", sort=True):
        if rows.frame.duplicated().any():
            twice = rows.frame[rows.frame.duplicated()].iloc[0]
            raise archive.error(f"recording {recording}: frame {twice:g} appears twice")
        every = _filled(rows)
        if len(every) > len(rows):
            notes.append(Remark(recording, "repaired", f"{len(every) - len(rows)} skipped frames are filled"))  # pyright: ignore[reportArgumentType]
        features[recording] = every[list(FEATURES)].to_numpy(np.float32)
        segments += [(recording, *segment) for segment in label_segments(every.label.to_numpy())]
    kinds = {recording: recording.partition("-")[0] for recording in features}
    folds = seeded_folds(features, kinds=kinds)
    table = pd.DataFrame(
        {
            "recording": list(features),
            "split": "train",
            "duration": [len(rows) / RATE_HZ for rows in features.values()],
        }
    )
    if folds:
        table = with_fold(table, {recording: recording for recording in features}, folds[0])
    default = standardise(features, table.recording[table.split == "train"])
    annotations = pd.DataFrame(segments, columns=["recording", "start", "end", "label"])
    return Benchmark(
        name="urfall",
        classes=CLASSES,
        tious=TIOUS,
        feature_spec=SPEC,
        recordings=table,
        annotations=annotations,
        load_features=lambda recording: default.load(recording),
        source_hash=digest(*(rows.tobytes() for rows in features.values())),
        where=str(name or path),
        notes=tuple(notes),
        folds=folds,
        standardise=partial(standardise, features),
    )


def check_archive(path: Path, name: object = None) -> None:
    """Raise `TalError` unless `path` holds the two published files, all their frames and labels."""
    benchmark = _load_file(path, name)
    counts = len(benchmark.recordings()), len(benchmark.annotations())
    if counts != (70, 97):
        raise TalError(
            f"{counts[0]} recordings and {counts[1]} segments, expected 70 and 97",
            where=name or path,
            remedy=SOURCE.remedy,
        )
    if benchmark.data_hash != PUBLISHED_HASH:
        raise TalError(
            f"its contents have the hash {benchmark.data_hash}, expected {PUBLISHED_HASH}",
            where=name or path,
            remedy=f"Take {' and '.join(FILES)} from {SITE}uf.html.",
        )


PUBLISHED_HASH = "a510a09596a5caaf"  # `data_hash`
SOURCE = Source(
    benchmark="urfall",
    file="urfall/urfall.zip",
    urls=tuple(f"{SITE}data/{name}" for name in FILES),
    check=check_archive,
    page=f"{SITE}uf.html (a zip archive of the two files)",
)
