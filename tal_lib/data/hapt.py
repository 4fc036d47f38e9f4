"""HAPT (known as SBHAR): 61 smartphone recordings of 30 people, 12 activities and postural transitions.

Source: Reyes-Ortiz et al., Transition-Aware Human Activity Recognition Using Smartphones, Neurocomputing 171
(2016); UCI Machine Learning Repository, dataset 341, CC BY 4.0.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from tal_lib.data.archive import Archive
from tal_lib.data.benchmark import Benchmark, FeatureSpec
from tal_lib.data.fetching import Source
from tal_lib.data.fetching import fetch as fetch_archive
from tal_lib.data.folds import HELD_OUT_EVERY, seeded_folds
from tal_lib.data.standardise import standardise
from tal_lib.errors import TalError
from tal_lib.files import file_state

RATE_HZ = 50
WINDOW, HOP = 50, 25  # samples: 1 s windows every 0.5 s
URL = "https://archive.ics.uci.edu/static/public/341/smartphone+based+recognition+of+human+activities+and+postural+transitions.zip"
TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
SPEC = FeatureSpec(stride_s=HOP / RATE_HZ, window_s=WINDOW / RATE_HZ, streams={"acc": 150, "gyro": 150})
FETCH = "Run `tal data fetch hapt` (or `tal data fetch hapt --from FILE`)."


def archive_path(root: Path) -> Path:
    """Where the archive is expected below the data root."""
    return Path(root) / "hapt" / "hapt.zip"


def check_archive(path: Path, name: object = None) -> None:
    """Raise `TalError` unless `path` is a complete HAPT archive: it has every file that the labels name.

    Args:
        name: the file's name in the error, if `path` is only a copy.
    """
    with _open(path, name) as archive:
        labels = _labels(archive)
        for experiment, user in labels[["experiment", "user"]].drop_duplicates().itertuples(index=False):
            for sensor in ("acc", "gyro"):
                archive.member(f"RawData/{sensor}_exp{experiment:02d}_user{user:02d}.txt")
        if len(labels) != 1214 or labels[["experiment", "user"]].drop_duplicates().shape[0] != 61:
            raise TalError(
                f"{len(labels)} labelled segments, expected 1,214 of 61 recordings",
                where=archive.name,
                remedy=FETCH,
            )


def _open(path, name=None):
    return Archive(path, name, remedy=FETCH)


def _labels(archive):
    return archive.table("RawData/labels.txt", ["experiment", "user", "activity", "first", "last"], int)


def _signal(archive, experiment, user):
    """Samples (S, 6): three axes of acceleration (g), three of angular velocity (rad/s)."""
    halves = [
        archive.table(
            f"RawData/{sensor}_exp{experiment:02d}_user{user:02d}.txt", ["x", "y", "z"], float
        ).to_numpy()
        for sensor in ("acc", "gyro")
    ]
    samples = min(map(len, halves))
    return np.hstack([half[:samples] for half in halves]).astype(np.float32)


def window_features(signal: np.ndarray) -> np.ndarray:
    """Sliding windows of a signal (S, 6) as features (T, 300): 150 columns `acc`, then 150 columns `gyro`."""
    windows = np.lib.stride_tricks.sliding_window_view(signal, WINDOW, axis=0)[::HOP]  # (T, 6, WINDOW)
    return windows.reshape(len(windows), -1)


@dataclass(frozen=True, kw_only=True)
class Raw:
    """The content of the archive; recordings in the archive's order."""

    classes: list[str]
    signals: dict[str, np.ndarray]  # recording → samples (S, 6)
    people: dict[str, str]  # recording → person
    splits: dict[str, str]  # recording → train or test
    annotations: pd.DataFrame
    hash: str  # of the contents
    path: Path


def read(root: Path, wanted: tuple[str, ...] = ("train", "test")) -> Raw:
    """Read the recordings of the wanted splits from the archive below `root`; official split by person.

    The archive is parsed again only after it has changed: several benchmarks are made of it.
    """
    path = archive_path(root)
    return _read(path, wanted, file_state(path))


@lru_cache(maxsize=2)
def _read(path, wanted, state):
    with _open(path) as archive:
        names = archive.table("activity_labels.txt", ["activity", "name"], str)
        classes = [name.lower() for name in names.name]
        users = {
            split: set(archive.table(f"{split.title()}/subject_id_{split}.txt", ["user"], int).user)
            for split in ("train", "test")
        }
        labels = _labels(archive)
        signals, people, splits = {}, {}, {}
        for experiment, user in labels[["experiment", "user"]].drop_duplicates().itertuples(index=False):
            recording = f"exp{experiment:02d}_user{user:02d}"
            split = "train" if user in users["train"] else "test"
            if split not in wanted:
                continue
            people[recording], splits[recording] = f"user{user:02d}", split
            signals[recording] = _signal(archive, experiment, user)
            signals[recording].flags.writeable = False
    annotations = pd.DataFrame(
        {
            "recording": [f"exp{e:02d}_user{u:02d}" for e, u in zip(labels.experiment, labels.user)],
            "start": (labels["first"] - 1) / RATE_HZ,  # sample numbers start at 1, ends are inclusive
            "end": labels["last"] / RATE_HZ,
            "label": [classes[activity - 1] for activity in labels.activity],
        }
    )
    return Raw(
        classes=classes,
        signals=signals,
        people=people,
        splits=splits,
        annotations=annotations,
        hash=archive.hash.hexdigest(),
        path=path,
    )


def load(root: Path, *, validation: bool = False) -> Benchmark:
    """HAPT with its official split by person.

    Args:
        validation: leave out the test people, and use a quarter of the training people as `test`. So design
            decisions never use the official test split.
    """
    raw = read(root, ("train",) if validation else ("train", "test"))
    splits = raw.splits
    if validation:
        held_out = set(sorted(set(raw.people.values()))[::HELD_OUT_EVERY])
        splits = {name: "test" if person in held_out else "train" for name, person in raw.people.items()}
    recordings = pd.DataFrame(
        [
            {"recording": recording, "split": split, "duration": len(raw.signals[recording]) / RATE_HZ}
            for recording, split in splits.items()
        ]
    )
    features = {recording: window_features(signal) for recording, signal in raw.signals.items()}
    by_statistics_of = partial(standardise, features, samples=WINDOW)
    official = by_statistics_of(recordings.recording[recordings.split == "train"])
    return Benchmark(
        name="hapt_validation" if validation else "hapt",
        classes=raw.classes,
        tious=TIOUS,
        feature_spec=SPEC,
        recordings=recordings,
        annotations=raw.annotations[  # pyright: ignore[reportArgumentType]
            raw.annotations.recording.isin(recordings.recording)
        ],
        load_features=lambda recording: official.load(recording),  # of this module, for `Benchmark.loader`
        source_hash=raw.hash,
        where=str(raw.path),
        inertial=official.inertial,
        people=raw.people,
        folds=() if validation else seeded_folds(raw.people.values()),
        standardise=by_statistics_of,
        statistics_of_split=True,
    )


SOURCE = Source(benchmark="hapt", file="hapt/hapt.zip", urls=(URL,), check=check_archive)


def fetch(root: Path, given: str | Path | None = None) -> Path:
    """Put the archive below `root`: download it, or copy the file `given`. It is checked first."""
    return fetch_archive(SOURCE, root, given)
