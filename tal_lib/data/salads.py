"""50 Salads: 50 kitchen videos of 25 people, 17 activities, five official folds by person.

- `50salads`: the class scores of a supervised frame classifier as features, 28 a second. They say nothing
  about learning from few labels (`FOR_FULL_LABELS`).

      <data root>/50salads/annotations.json, features.npz

- `50salads_i3d`: the features of the MS-TCN release, if the user has them: I3D, 2048 columns, 15 steps a
  second, as published. Its labels are one per frame.

      <data root>/50salads/features/<recording>.npy, groundTruth/<recording>.txt, splits/test.split1.bundle …

Fold k is the official split k + 1. There is no single official split, so fold 0 stands for it.

Sources: Stein and McKenna, UbiComp 2013 (data, CC BY-NC-SA 4.0: not for commerce); Lea et al., CVPR 2017
(scores, MIT); Abu Farha and Gall, MS-TCN, CVPR 2019 (features and frame labels).
"""

import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from tal_lib.data.annotations import Instance
from tal_lib.data.archive import ZIP_ERRORS, open_zip
from tal_lib.data.benchmark import Benchmark, FeatureSpec
from tal_lib.data.feature_folder import FeatureFolder
from tal_lib.data.folds import with_fold
from tal_lib.data.limits import check_npy, check_zip
from tal_lib.data.remarks import ALL, Remark
from tal_lib.data.standardise import standardise
from tal_lib.data.subsets import FULL_LABELS
from tal_lib.errors import TalError
from tal_lib.files import atomic_path, digest
from tal_lib.reading import read_json, read_text
from tal_lib.validation import Count, Positive, Whole, validate

FOLDER = "50salads"
TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
SCORES = FeatureSpec(  # row t holds the scores of the frame at t seconds
    stride_s=1.0, window_s=1 / 30, streams={"mid_level": 18, "eval_level": 10}
)
I3D = FeatureSpec(stride_s=1 / 15, window_s=1 / 30, streams={"i3d": 2048})
FRAME_HZ = 30  # of the frame labels
BACKGROUND = ("action_start", "action_end")  # labels of the frames without an activity
FOR_FULL_LABELS = (
    "The features are scores of a classifier trained with dense labels of the other 80 % of the videos: fine "
    "as a localisation task with official folds, not as proof of learning from few labels, because the "
    "features already paid for the labels."
)
FILES = ("annotations.json", "features.npz")
FETCH = (
    f"Put {' and '.join(FILES)} into {FOLDER}/ below the data folder, or run `tal data fetch 50salads --from "
    "FILE` with a zip archive of both."
)
FETCH_I3D = f"Unpack the MS-TCN release of 50 Salads into {FOLDER}/ below the data folder."


@dataclass(frozen=True)
class Entry:
    """One recording of annotations.json."""

    others_ignored: ClassVar[bool] = True
    duration: Positive  # seconds
    annotations: list[Instance]
    fold: Count  # official test fold, from 1
    person: Whole


def read_arrays(path: Path, dim: int, remedy: str) -> dict[str, np.ndarray]:
    """All arrays (T, dim) of an `.npz` file, by name."""
    if not path.is_file():
        raise TalError("file not found", where=path, remedy=remedy)
    open_zip(path, path, remedy).close()
    try:
        with np.load(path, allow_pickle=False) as archive:
            check_zip(archive.zip, path)
            for entry in archive.zip.infolist():
                with archive.zip.open(entry) as file:
                    check_npy(file, entry.file_size, path)
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, *ZIP_ERRORS) as error:
        raise TalError(f"cannot be read ({error})", where=path, remedy=remedy) from None
    for name, array in arrays.items():
        if (
            array.ndim != 2
            or array.shape[1] != dim
            or array.dtype.kind != "f"
            or not np.isfinite(array).all()
        ):
            raise TalError(
                f"{name} is not an array (T, {dim}) of finite numbers, but {array.dtype} {array.shape}",
                where=path,
                remedy=remedy,
            )
    return arrays


def load(root: Path) -> Benchmark:
    """The benchmark with the class scores as features."""
    return _load_folder(Path(root) / FOLDER)


def _load_folder(folder, annotation_file=FILES[0], feature_file=FILES[1]) -> Benchmark:
    path = folder / annotation_file
    content = read_json(path, what="annotation file", remedy=FETCH)
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict) or not database:
        raise TalError("no `database` of recordings in it", where=path, remedy=FETCH)
    entries: dict[str, Entry] = {
        name: validate(Entry, entry, where=path, name=name) for name, entry in database.items()
    }
    features = read_arrays(folder / feature_file, SCORES.dim, FETCH)
    missing = sorted(set(entries) - set(features))
    if missing:
        raise TalError(f"no features of {missing[0]}", where=folder / feature_file, remedy=FETCH)
    names = sorted(entries)
    features = {name: features[name].astype(np.float32) for name in names}
    segments = [
        (name, *instance.segment, instance.label) for name in names for instance in entries[name].annotations
    ]
    numbers = {name: entry.fold for name, entry in entries.items()}
    people = {name: f"{entry.person:02d}" for name, entry in entries.items()}
    table, folds = _split(
        pd.DataFrame({"recording": names, "duration": [entries[name].duration for name in names]}),
        people,
        [[name for name in names if numbers[name] == number] for number in sorted(set(numbers.values()))],
        path,
    )
    annotations = pd.DataFrame(segments, columns=["recording", "start", "end", "label"])
    default = standardise(features, table.recording[table.split == "train"])
    return Benchmark(
        name="50salads",
        classes=sorted(annotations.label.unique()),
        tious=TIOUS,
        feature_spec=SCORES,
        recordings=table,
        annotations=annotations,
        load_features=lambda recording: default.load(recording),
        source_hash=digest(*(part for name in names for part in (name, features[name].tobytes()))),
        where=str(path),
        notes=(Remark(ALL, FULL_LABELS, FOR_FULL_LABELS),),
        people=people,
        folds=folds,
        standardise=partial(standardise, features),
    )


def _split(table, people, tested, where):
    """The table with fold 0 as its split, and the people of each fold.

    Args:
        tested: the test recordings of each fold.
    """
    folds = [sorted({people[name] for name in names}) for names in tested]
    everyone = [person for fold in folds for person in fold]
    if len(set(everyone)) < len(everyone) or len(folds) < 2 or set(everyone) != set(people.values()):
        raise TalError("its folds do not have every person in exactly one of them", where=where, remedy=FETCH)
    return with_fold(table.assign(split="train"), people, folds[0]), folds


def load_i3d(root: Path) -> Benchmark:
    """The benchmark with the I3D features of the MS-TCN release."""
    folder = Path(root) / FOLDER
    files = sorted((folder / "groundTruth").glob("*.txt"))
    if not files:
        raise TalError("no frame labels (<recording>.txt)", where=folder / "groundTruth", remedy=FETCH_I3D)
    labels = {path.stem: read_text(path, what="frame labels", remedy=FETCH_I3D).split() for path in files}
    empty = [name for name, frames in labels.items() if not frames]
    if empty:
        raise TalError("no label in it", where=folder / "groundTruth" / f"{empty[0]}.txt", remedy=FETCH_I3D)
    people = {name: name.removeprefix("rgb-").partition("-")[0] for name in labels}
    tested = []
    for path in sorted((folder / "splits").glob("test.split*.bundle")):
        names = [
            line.removesuffix(".txt") for line in read_text(path, what="split", remedy=FETCH_I3D).split()
        ]
        unknown = [name for name in names if name not in labels]
        if unknown:
            raise TalError(f"names {unknown[0]}, which has no labels", where=path, remedy=FETCH_I3D)
        tested.append(names)
    table = pd.DataFrame(
        {"recording": list(labels), "duration": [len(frames) / FRAME_HZ for frames in labels.values()]}
    )
    table, folds = _split(table, people, tested, folder / "splits")
    segments = [(name, *segment) for name, frames in labels.items() for segment in frame_segments(frames)]
    annotations = pd.DataFrame(segments, columns=["recording", "start", "end", "label"])
    features = FeatureFolder(folder / "features", I3D.streams, labels)

    def load(recording):
        return at_15_hz(features.load(recording), len(labels[recording]), f"{folder}/features, {recording}")

    return Benchmark(
        name="50salads_i3d",
        classes=sorted(annotations.label.unique()),
        tious=TIOUS,
        feature_spec=I3D,
        recordings=table,
        annotations=annotations,
        load_features=load,
        source_hash=lambda: features.content_hash("50salads_i3d"),
        where=str(folder),
        people=people,
        folds=folds,
        files=features,
    )


def frame_segments(labels: list[str]) -> list[tuple[float, float, str]]:
    """Runs of equal frame labels as (start s, end s, label), without background."""
    edges = [0, *(i for i in range(1, len(labels)) if labels[i] != labels[i - 1]), len(labels)]
    return [
        (first / FRAME_HZ, last / FRAME_HZ, labels[first])
        for first, last in zip(edges[:-1], edges[1:])
        if labels[first] not in BACKGROUND
    ]


def at_15_hz(features: np.ndarray, frames: int, where: str) -> np.ndarray:
    """Features with 15 steps a second: every second row of features with a row per frame.

    Raises:
        TalError: neither a row per frame nor one per two frames.
    """
    for frames_per_row in (1, 2):
        if abs(len(features) * frames_per_row - frames) <= FRAME_HZ:  # a second of tolerance at the end
            return features[:: 2 // frames_per_row]
    raise TalError(
        f"{len(features):,} rows for {frames:,} frame labels",
        where=where,
        remedy="Expected one row per frame, or one per two frames.",
    )


def check_folder(
    folder: Path, annotation_file: str = FILES[0], feature_file: str = FILES[1], name=None
) -> None:
    """Raise `TalError` unless the two files hold the published annotations and scores."""
    benchmark = _load_folder(folder, annotation_file, feature_file)
    counts = len(benchmark.recordings()), len(benchmark.annotations()), len(benchmark.classes)
    if counts != (50, 940, 17) or benchmark.data_hash != PUBLISHED_HASH:
        raise TalError(
            f"{counts[0]} recordings, {counts[1]} segments of {counts[2]} classes, hash "
            f"{benchmark.data_hash}; expected 50, 940, 17, {PUBLISHED_HASH}",
            where=name or folder,
            remedy=FETCH,
        )


def fetch(root: Path, given: str | Path | None = None) -> Path:
    """Unpack the two files from a zip archive below `root`. They are checked first.

    Raises:
        TalError: no archive is given, or it lacks a file, or holds other data.
    """
    folder = Path(root) / FOLDER
    if given is None:
        if all((folder / name).is_file() for name in FILES):
            check_folder(folder)
            return folder
        raise TalError(
            "50salads cannot be downloaded by this command",
            remedy=f"{FETCH} Videos and licence: https://cvip.computing.dundee.ac.uk/datasets/foodpreparation/50salads/",
        )
    if not Path(given).is_file():
        raise TalError(
            "is a folder" if Path(given).is_dir() else "file not found",
            where=given,
            remedy="Give the path of a zip archive.",
        )
    with open_zip(given, given, FETCH) as archive:
        check_zip(archive, given)
        contents = [_member(archive, name, given) for name in FILES]
    with atomic_path(folder / FILES[0]) as annotations, atomic_path(folder / FILES[1]) as features:
        annotations.write_bytes(contents[0])
        features.write_bytes(contents[1])
        check_folder(folder, annotations.name, features.name, given)
    return folder


def _member(archive: zipfile.ZipFile, name, given) -> bytes:
    members = [entry for entry in archive.namelist() if entry == name or entry.endswith("/" + name)]
    if not members:
        raise TalError(f"{name} is missing", where=given, remedy=FETCH)
    try:
        return archive.read(members[0])
    except (OSError, ValueError, *ZIP_ERRORS) as error:
        raise TalError(f"{name} cannot be read ({error})", where=given, remedy=FETCH) from None


PUBLISHED_HASH = "831225a31980acb6"  # `data_hash` of `50salads`
