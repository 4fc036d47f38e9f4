"""HAPT (known as SBHAR): 61 smartphone recordings of 30 people, 12 activities and postural transitions.

Source: Reyes-Ortiz et al., Transition-Aware Human Activity Recognition Using Smartphones, Neurocomputing 171
(2016); UCI Machine Learning Repository, dataset 341, CC BY 4.0.
"""

import hashlib
import io
import lzma
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from tal_lib.data.benchmark import Benchmark, FeatureSpec
from tal_lib.data.inertial import Inertial
from tal_lib.data.limits import check_zip
from tal_lib.data.standardise import mean_and_std
from tal_lib.errors import TalError

RATE_HZ = 50
WINDOW, HOP = 50, 25  # samples: 1 s windows every 0.5 s
URL = "https://archive.ics.uci.edu/static/public/341/smartphone+based+recognition+of+human+activities+and+postural+transitions.zip"
TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
VALIDATION_EVERY = 4  # hapt_validation holds out every fourth training person
FETCH = "Run `tal data fetch hapt` (or `tal data fetch hapt --from FILE`)."


def archive_path(root: Path) -> Path:
    """Where the archive is expected below the data root."""
    return Path(root) / "hapt" / "hapt.zip"


def check_archive(path: Path, name: object = None) -> None:
    """Raise `TalError` unless `path` is a complete HAPT archive: it has every file that the labels name.

    Args:
        name: the file's name in the error, if `path` is only a copy.
    """
    with _Archive(path, name) as archive:
        labels = archive.labels()
        for experiment, user in labels[["experiment", "user"]].drop_duplicates().itertuples(index=False):
            for sensor in ("acc", "gyro"):
                archive.member(f"RawData/{sensor}_exp{experiment:02d}_user{user:02d}.txt")
        if len(labels) != 1214 or labels[["experiment", "user"]].drop_duplicates().shape[0] != 61:
            raise TalError(
                f"{len(labels)} labelled segments, expected 1,214 of 61 recordings",
                where=archive.name,
                remedy=FETCH,
            )


# raised for damaged archives: encrypted or truncated members, unknown compression
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, NotImplementedError, EOFError)


def _open_zip(path, name):
    try:
        return zipfile.ZipFile(path)
    except (OSError, ValueError, *ZIP_ERRORS) as error:
        problem = "not a zip archive, or a truncated one"
        if isinstance(error, OSError):
            problem = f"cannot be read ({error.strerror or error})"
        raise TalError(problem, where=name, remedy=FETCH) from None


class _Archive:
    """The text tables of the archive, in any of its folders."""

    def __init__(self, path, name=None):
        self.path, self.name = Path(path), name or path
        if not self.path.is_file():
            raise TalError("file not found", where=self.name, remedy=FETCH)
        self.zip = _open_zip(self.path, self.name)
        try:
            check_zip(self.zip, self.path, name=self.name)
        except TalError:
            self.zip.close()
            raise
        self.read = hashlib.sha256()  # hash of the contents read, independent of packing

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.zip.close()

    def member(self, name):
        members = [entry for entry in self.zip.namelist() if entry == name or entry.endswith("/" + name)]
        if not members:
            raise TalError(f"{name} is missing", where=self.name, remedy=FETCH)
        return members[0]

    def table(self, name, columns, dtype):
        member = self.member(name)
        try:
            content = self.zip.read(member)
            self.read.update(name.encode() + content)
            table = pd.read_csv(
                io.BytesIO(content),
                sep=r"\s+" if dtype is str else " ",
                header=None,
                names=columns,
                dtype=dtype,
                skipinitialspace=True,
            )
        except (OSError, ValueError, *ZIP_ERRORS) as error:
            raise TalError(f"{name} cannot be read ({error})", where=self.name, remedy=FETCH) from None
        if table.isna().any().any():
            raise TalError(f"{name} has missing values", where=self.name, remedy=FETCH)
        return table

    def labels(self):
        return self.table("RawData/labels.txt", ["experiment", "user", "activity", "first", "last"], int)


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


def load(root: Path, *, validation: bool = False) -> Benchmark:
    """Read the archive below `root`; official split by person.

    Args:
        validation: leave out the test people, and use a quarter of the training people as `test`. So design
            decisions never use the official test split.
    """
    path = archive_path(root)
    with _Archive(path) as archive:
        names = archive.table("activity_labels.txt", ["activity", "name"], str)
        classes = [name.lower() for name in names.name]
        people = {
            split: sorted(
                archive.table(f"{split.title()}/subject_id_{split}.txt", ["user"], int).user.unique()
            )
            for split in ("train", "test")
        }
        labels = archive.labels()
        signals, rows = {}, []
        held_out = set(people["train"][::VALIDATION_EVERY])
        for experiment, user in labels[["experiment", "user"]].drop_duplicates().itertuples(index=False):
            split = "train" if user in people["train"] else "test"
            if validation:
                if split == "test":
                    continue
                split = "test" if user in held_out else "train"
            recording = f"exp{experiment:02d}_user{user:02d}"
            signals[recording] = _signal(archive, experiment, user)
            rows.append(
                {"recording": recording, "split": split, "duration": len(signals[recording]) / RATE_HZ}
            )
    recordings = pd.DataFrame(rows)
    annotations = pd.DataFrame(
        {
            "recording": [f"exp{e:02d}_user{u:02d}" for e, u in zip(labels.experiment, labels.user)],
            "start": (labels["first"] - 1) / RATE_HZ,  # sample numbers start at 1, ends are inclusive
            "end": labels["last"] / RATE_HZ,
            "label": [classes[activity - 1] for activity in labels.activity],
        }
    )
    annotations = annotations[annotations.recording.isin(recordings.recording)]
    training = recordings.recording[recordings.split == "train"]
    mean, std = mean_and_std(lambda: (window_features(signals[recording]) for recording in training))
    std = std + 1e-6

    return Benchmark(
        name="hapt_validation" if validation else "hapt",
        classes=classes,
        tious=TIOUS,
        feature_spec=FeatureSpec(
            stride_s=HOP / RATE_HZ, window_s=WINDOW / RATE_HZ, streams={"acc": 150, "gyro": 150}
        ),
        recordings=recordings,
        annotations=annotations,  # pyright: ignore[reportArgumentType]
        load_features=lambda recording: (window_features(signals[recording]) - mean) / std,
        source_hash=archive.read.hexdigest(),
        where=str(path),
        inertial=Inertial(WINDOW, mean, std),
    )


def fetch(root: Path, source: str | Path | None = None) -> Path:
    """Put the archive below `root`: download it, or copy the file `source`. It is checked first."""
    import shutil
    import urllib.error
    import urllib.request

    from tal_lib.disk import FULL_CODES, disk_errors, writable_folder
    from tal_lib.files import atomic_path
    from tal_lib.writing import same_file

    target = archive_path(root)
    with disk_errors(target):
        there = target.is_file()
    if there and (source is None or same_file(source, target)):
        check_archive(target)
        return target
    if source is not None and not Path(source).is_file():
        raise TalError(
            "is a folder" if Path(source).is_dir() else "file not found",
            where=source,
            remedy="Give the path of the downloaded archive.",
        )
    name = URL if source is None else source
    writable_folder(target.parent)
    with atomic_path(target) as temporary:
        if source is not None:
            try:
                shutil.copyfile(source, temporary)
            except PermissionError as error:
                raise TalError(
                    f"cannot be read ({error.strerror})", where=source, remedy="Change its rights."
                ) from None
        else:
            try:
                with urllib.request.urlopen(URL, timeout=60) as reply, open(temporary, "wb") as out:
                    shutil.copyfileobj(reply, out)
            except (urllib.error.URLError, OSError) as error:
                if error.errno in FULL_CODES:
                    raise
                raise TalError(
                    f"download failed ({error})",
                    where=URL,
                    remedy="Download it in a browser and run `tal data fetch hapt --from FILE`.",
                ) from None
        _unwrap(temporary, name)
        check_archive(temporary, name)
    return target


def _unwrap(path, name):
    """UCI distributes the archive inside another archive; keep the inner one."""
    with _open_zip(path, name) as outer:
        check_zip(outer, path, name=name)
        inner = [entry for entry in outer.namelist() if re.search(r"(?i)\.zip$", entry)]
        try:
            data = outer.read(inner[0]) if inner else None
        except (OSError, ValueError, *ZIP_ERRORS) as error:
            raise TalError(f"{inner[0]} cannot be read ({error})", where=name, remedy=FETCH) from None
    if data is not None:
        Path(path).write_bytes(data)
