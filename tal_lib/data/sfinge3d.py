"""SFINGE 3D: 72 continuous recordings of one tracked hand, 13 gestures, and 468 cut gestures to learn from.

A hand is a palm and 19 finger joints, each with a position (x, y, z, m) and an orientation (quaternion), 20
times a second: 140 numbers a frame, from infrared stereo video. Two protocols:

- `sfinge3d`: learn from recordings, five folds by number. People are unknown. Hand sizes suggest that the
  same hands occur in several folds, so this is no test on other people.
- `sfinge3d_dictionary`: the owners' protocol: learn from the cut gestures, find them in all 72 recordings.

Source: Caputo et al., SFINGE 3D: A novel benchmark for online detection and recognition of heterogeneous hand
gestures from 3D fingers' trajectories, Computers & Graphics 91 (2020). The owners state no licence.
"""

from collections.abc import Iterable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from tal_lib.data.archive import Archive
from tal_lib.data.benchmark import Benchmark, FeatureSpec
from tal_lib.data.fetching import Source
from tal_lib.data.folds import folds_by_number, with_fold
from tal_lib.data.remarks import Remark
from tal_lib.data.standardise import standardise
from tal_lib.errors import TalError
from tal_lib.files import file_state

RATE_HZ = 20
HOP, WINDOW = 2, 4  # frames: a step every 0.1 s, over 0.2 s
JOINTS, NUMBERS = 20, 7  # of a joint: position and quaternion
COLUMNS = [str(number) for number in range(JOINTS * NUMBERS)]
CLASSES = (
    "one",
    "two",
    "three",
    "four",
    "OK",
    "pinch",
    "grab",
    "expand",
    "tap",
    "swipe_left",
    "swipe_right",
    "swipe_V",
    "swipe_O",
)
TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
COMMIT = "0236d44ffa6d166c29a8b4049f3120ce86e63d57"  # of the owners' repository
URL = f"https://github.com/SFINGE3D/DatasetV1/archive/{COMMIT}.zip"
POSE, MOTION = 3 * (JOINTS - 1) + 4, 3 * JOINTS  # columns of the two streams
SPEC = FeatureSpec(
    stride_s=HOP / RATE_HZ, window_s=WINDOW / RATE_HZ, streams={"pose": POSE, "motion": MOTION}
)


def hand_features(frames: np.ndarray) -> np.ndarray:
    """Frames (F, 140) as features (T, 121).

    `pose` (61): positions of the 19 finger joints relative to the palm, and the palm's orientation. `motion`
    (60): velocities, of the palm in the tracker's frame and of the joints relative to it (m/s). Each step is
    the mean over 4 frames.
    """
    joints = frames.reshape(len(frames), JOINTS, NUMBERS)
    palm, fingers = joints[:, 0, :3], joints[:, 1:, :3] - joints[:, :1, :3]
    turn = joints[:, 0, 3:] * np.where(joints[:, 0, 6:] < 0, -1, 1)  # q and −q are the same orientation
    positions = np.hstack([palm, fingers.reshape(len(frames), -1)])
    velocities = np.gradient(positions, axis=0) * RATE_HZ if len(frames) > 1 else np.zeros_like(positions)
    columns = np.hstack([positions[:, 3:], turn, velocities]).astype(np.float32)
    if len(columns) < WINDOW:
        columns = np.pad(columns, ((0, WINDOW - len(columns)), (0, 0)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(columns, WINDOW, axis=0)[::HOP].mean(-1)


def _open(path, name=None):
    return Archive(path, name, remedy=SOURCE.remedy)


def _cut_gestures(archive, label) -> dict[int, np.ndarray]:
    """Number → frames of the cut gestures of a class. Their files are parsed at once, which is faster."""
    folder = f"Dictionary/{label}/"
    parts = {number: archive.content(f"{folder}{number}.txt") for number in _numbers(archive, folder)}
    lines = [[line for line in part.splitlines() if line.strip()] for part in parts.values()]
    if not all(lines):
        raise archive.error(f"{folder}{list(parts)[lines.index([])]}.txt is empty")
    if not parts:
        raise archive.error(f"{folder}1.txt is missing")
    together = b"\n".join(line for part in lines for line in part)
    frames = archive.parse(together, folder, COLUMNS, float, sep=";").to_numpy()
    return dict(zip(parts, np.split(frames, np.cumsum([len(part) for part in lines])[:-1])))


def _annotations(archive, durations: dict[str, float]) -> tuple[pd.DataFrame, list[Remark]]:
    """The annotated gestures: `sequence, count, (class, first frame, last frame)*`, frames counted from 1."""
    rows, notes = [], []
    for line in archive.content("Sequences/sequencesGT.csv").decode("ascii", "replace").split():
        try:
            sequence, count, *numbers = (int(text) for text in line.split(","))
            gestures = [tuple(numbers[at : at + 3]) for at in range(0, len(numbers), 3)]
            if len(numbers) != 3 * count or not all(1 <= label <= len(CLASSES) for label, _, _ in gestures):
                raise ValueError
        except ValueError:
            raise archive.error(f"sequencesGT.csv: line {line[:60]!r} does not list gestures") from None
        recording = recording_id(sequence)
        if recording not in durations:
            raise archive.error(f"Sequences/{sequence}.txt is missing")
        for label, first, last in gestures:
            frames = round(durations[recording] * RATE_HZ)
            if last > frames:
                notes.append(Remark(recording, "repaired", f"last frame {last} of {frames} is clipped"))
            rows.append((recording, (first - 1) / RATE_HZ, min(last, frames) / RATE_HZ, CLASSES[label - 1]))
    return pd.DataFrame(rows, columns=["recording", "start", "end", "label"]), notes


def recording_id(sequence: int) -> str:
    """The id of a continuous recording: `seq_01` to `seq_72`."""
    return f"seq_{sequence:02d}"


def _sequences(archive) -> dict[str, np.ndarray]:
    """Recording → frames, in the order of their numbers."""
    numbers = _numbers(archive, "Sequences/")
    if not numbers:
        raise archive.error("Sequences/1.txt is missing")
    return {
        recording_id(number): archive.table(f"Sequences/{number}.txt", COLUMNS, float, sep=",").to_numpy()
        for number in numbers
    }


def _numbers(archive, folder) -> list[int]:
    """Numbers of the files `<folder><number>.txt` of the archive, sorted."""
    names = (entry.rpartition(folder)[2] for entry in archive.zip.namelist() if folder in entry)
    stems: Iterable[str] = (name.removesuffix(".txt") for name in names if name.endswith(".txt"))
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def load(root: Path) -> Benchmark:
    """The 72 recordings; there is no official split of them, so fold 0 stands for it."""
    return _load_file(Path(root) / SOURCE.file)


@lru_cache(maxsize=2)
def _recordings(path, name, state):
    """Frames, annotations and remarks of the 72 recordings, and the archive as it was read; `state`: of the
    file."""
    with _open(path, name) as archive:
        frames = _sequences(archive)
        for rows in frames.values():
            rows.flags.writeable = False
        durations = {recording: len(rows) / RATE_HZ for recording, rows in frames.items()}
        annotations, notes = _annotations(archive, durations)
    return archive, frames, durations, annotations, notes


def _load_file(path, name=None) -> Benchmark:
    archive, frames, durations, annotations, notes = _recordings(path, name, file_state(path))
    folds = folds_by_number(list(frames))
    groups = {recording: recording for recording in frames}
    table = pd.DataFrame({"recording": list(frames), "split": "train", "duration": list(durations.values())})
    table = with_fold(table, groups, folds[0])
    return _benchmark("sfinge3d", frames, table, annotations, archive, notes, folds)


def load_dictionary(root: Path) -> Benchmark:
    """The owners' protocol: train on the 468 cut gestures, test on the 72 recordings."""
    with _open(Path(root) / SOURCE.file) as archive:
        tested = _sequences(archive)
        durations = {recording: len(rows) / RATE_HZ for recording, rows in tested.items()}
        annotations, notes = _annotations(archive, durations)
        cut, segments = {}, []
        for label, name in enumerate(CLASSES, 1):
            for number, frames in _cut_gestures(archive, label).items():
                gesture = f"cut_{label:02d}_{number:02d}"
                cut[gesture] = frames
                segments.append((gesture, 0.0, len(cut[gesture]) / RATE_HZ, name))
    rows = [(name, "train", len(frames) / RATE_HZ) for name, frames in cut.items()]
    rows += [(name, "test", len(frames) / RATE_HZ) for name, frames in tested.items()]
    table = pd.DataFrame(rows, columns=["recording", "split", "duration"])
    learned = pd.DataFrame(segments, columns=annotations.columns)
    annotations = pd.concat([learned, annotations], ignore_index=True)
    return _benchmark("sfinge3d_dictionary", cut | tested, table, annotations, archive, notes, ())


def _benchmark(name, frames, table, annotations, archive, notes, folds):
    features = {recording: hand_features(rows) for recording, rows in frames.items()}
    default = standardise(features, table.recording[table.split == "train"])
    return Benchmark(
        name=name,
        classes=CLASSES,
        tious=TIOUS,
        feature_spec=SPEC,
        recordings=table,
        annotations=annotations,
        load_features=lambda recording: default.load(recording),
        source_hash=archive.hash.hexdigest(),
        where=str(archive.name),
        notes=tuple(notes),
        folds=folds,
        standardise=partial(standardise, features),
    )


def check_archive(path: Path, name: object = None) -> None:
    """Raise `TalError` unless `path` holds the published recordings and gestures, all of them."""
    benchmark = _load_file(path, name)
    counts = len(benchmark.recordings()), len(benchmark.annotations())
    with _open(path, name) as archive:
        gestures = [len(_numbers(archive, f"Dictionary/{label}/")) for label in range(1, len(CLASSES) + 1)]
    if counts != (72, 278) or gestures != [36] * len(CLASSES):
        raise TalError(
            f"{counts[0]} recordings, {counts[1]} segments and {sum(gestures)} cut gestures, "
            "expected 72, 278 and 468",
            where=name or path,
            remedy=SOURCE.remedy,
        )
    if benchmark.data_hash != PUBLISHED_HASH:
        raise TalError(
            f"its contents have the hash {benchmark.data_hash}, expected {PUBLISHED_HASH}",
            where=name or path,
            remedy=f"Take the archive of commit {COMMIT[:10]}: {URL}",
        )


PUBLISHED_HASH = "489870a19bb501b8"  # `data_hash` of `sfinge3d`: recordings and annotations
SOURCE = Source(
    benchmark="sfinge3d",
    file="sfinge3d/sfinge3d.zip",
    urls=(URL,),
    check=check_archive,
    page="https://github.com/SFINGE3D/DatasetV1",
)
