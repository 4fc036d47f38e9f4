"""Peak memory of `tal train` at the full shape of the large data sets, under a limit of 8 GB.

    python experiments/memory_at_scale.py [activitynet hacs epic_kitchens_noun ego4d_mq]

For each data set it writes a stand-in below a temporary folder: annotations in the form that the library
reads, and one `.npy` file per video (and stream) of the published width. Then the real command
`tal train` runs for one epoch with 0 and with 2 workers, and tests on all test videos.

The system lets each process reserve no more than the limit (Linux, RLIMIT_DATA), which is stricter than a
limit of the memory that it touches. Resident memory is that of the process and its children. The cache of
files does not count.

Features are zeros, except for one step of noise in the middle of each file. The files are sparse, so they
need little disk. Lengths and segments are drawn at random, to resemble published counts. So only memory is
shown. mAP and seconds say nothing about the data sets.

Files of one length are equal. So one file of each length is hashed here, and `tal train` finds the hashes in
its cache. Of EPIC-Kitchens, whose lengths all differ, `tal train` itself reads every byte once to hash it.

The committed rows are of a small model that keeps many detections, and of a part of the training videos:
`--preset plain --set width=16 --set thresholds=[0.001]`, and a `--fraction` for each data set (columns
`options` and `fraction`).

Writes results/experiments/memory_at_scale.csv, one row per data set. Rows of other data sets stay.
"""

import argparse
import filecmp
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from tal_lib.data import content
from tal_lib.errors import TalError
from tal_lib.files import REPOSITORY, cache_root, digest, write_text
from tal_lib.process.environment import child_environment
from tal_lib.provenance import device_name, git_commit

PATH = REPOSITORY / "results" / "experiments" / "memory_at_scale.csv"
WORKERS = (0, 2)
GIB = 2**30
INTERVAL_S = 0.1  # between two looks at the memory


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """The shape of a data set: published numbers of videos and classes, and how lengths are drawn."""

    file: str  # annotations, below the data root
    train: int  # videos
    test: int
    classes: int
    segments: float  # mean number per second of video
    segment_s: float  # mean length of a segment
    median_s: float  # of the lengths of videos: log-normal, cut at `shortest_s` and `longest_s`
    spread: float  # standard deviation of the logarithm; 0: all videos are of one length
    shortest_s: float = 5.0
    longest_s: float
    streams: dict[str, int]
    stride_s: float = 16 / 30
    window_s: float = 32 / 30
    steps: int | None = None  # of every file; None: by length, stride and window
    hashed_by_training: bool = False  # else the hashes of its files are prepared
    spec: dict = field(default_factory=dict)  # spec.json, if the default features are others

    @property
    def features(self) -> str:
        """Folder of the features, below the data root."""
        return str(Path(self.file).parent / "features")


# Videos and classes as published (those of HACS and Ego4D are not compared with their files). ActivityNet:
# TSP features of 192 steps. HACS and EPIC-Kitchens: SlowFast features of 2,304 columns. Ego4D: SlowFast and
# Omnivore side by side, 3,840 columns. One video of each split has the longest length.
STAND_INS = {
    "activitynet": StandIn(
        file="activitynet/activitynet.json",
        train=10_024,
        test=4_926,
        classes=200,
        segments=1.54 / 117,
        segment_s=50,
        median_s=105,
        spread=0.5,
        longest_s=755,
        streams={"tsp": 512},
        steps=192,
    ),
    "hacs": StandIn(
        file="hacs/hacs.json",
        train=37_613,
        test=5_981,
        classes=200,
        segments=2.8 / 149,
        segment_s=40,
        median_s=150,
        spread=0.4,
        shortest_s=10,
        longest_s=240,
        streams={"slowfast": 2304},
        stride_s=8 / 15,
        window_s=32 / 15,
    ),
    "epic_kitchens_noun": StandIn(
        file="epic_kitchens/epic_kitchens_100_noun.json",
        train=495,
        test=138,
        classes=300,
        segments=0.25,
        segment_s=3,
        median_s=320,
        spread=1.0,
        shortest_s=10,
        longest_s=5400,
        streams={"slowfast": 2304},
        hashed_by_training=True,
    ),
    "ego4d_mq": StandIn(
        file="ego4d_mq/ego4d_mq.json",
        train=1_486,
        test=521,
        classes=110,
        segments=9.1 / 480,
        segment_s=20,
        median_s=480,
        spread=0,
        longest_s=480,
        streams={"slowfast": 2304, "omnivore": 1536},
        spec={"stride_frames": 16, "window_frames": 32, "fps": 30},
    ),
}


def write_stand_in(name: str, shape: StandIn, root: Path, seed: int = 0) -> dict:
    """Write annotations and features of a stand-in below a data root.

    Returns:
        The counts of its row: videos, segments, classes, columns, the longest file, size of the features.
    """
    rng = np.random.default_rng([seed, len(name)])
    database, steps = {}, {}
    labels = [f"class_{number:03d}" for number in range(shape.classes)]
    for split, count in (("training", shape.train), ("validation", shape.test)):
        lengths = np.exp(rng.normal(np.log(shape.median_s), shape.spread, count))
        lengths = np.clip(lengths, shape.shortest_s, shape.longest_s)
        lengths[0] = shape.longest_s
        for number, seconds in enumerate(lengths.round(3)):
            video = f"{split}_{number:05d}"
            segments = max(1, int(rng.poisson(shape.segments * seconds)))
            starts = rng.uniform(0, 0.95 * seconds, segments)
            ends = np.minimum(starts + 0.1 + rng.exponential(shape.segment_s, segments), seconds)
            names = rng.choice(labels, segments)
            names[0] = labels[number % len(labels)]  # every class occurs
            database[video] = {
                "subset": split,
                "duration": float(seconds),
                "annotations": [
                    {"segment": [round(float(start), 3), round(float(end), 3)], "label": str(label)}
                    for start, end, label in zip(starts, ends, names)
                ],
            }
            covered = int((seconds - shape.window_s) / shape.stride_s) + 1
            steps[video] = shape.steps or max(1, covered)
    write_text(root / shape.file, json.dumps({"database": database}))
    features = root / shape.features
    if shape.spec:
        write_text(features / "spec.json", json.dumps({"streams": shape.streams} | shape.spec))
    places = [features / stream if len(shape.streams) > 1 else features for stream in shape.streams]
    for place, columns in zip(places, shape.streams.values()):
        place.mkdir(parents=True, exist_ok=True)
        for video, count in steps.items():
            write_sparse(place / f"{video}.npy", count, columns, seed)
    return {
        "train_videos": shape.train,
        "test_videos": shape.test,
        "segments": sum(len(entry["annotations"]) for entry in database.values()),
        "classes": shape.classes,
        "columns": sum(shape.streams.values()),
        "longest_steps": max(steps.values()),
        "features_gb": 4 * sum(shape.streams.values()) * sum(steps.values()) / 1e9,
    }


def write_sparse(path: Path, steps: int, columns: int, seed: int = 0) -> None:
    """Write a sparse `.npy` file (steps, columns), float32: zeros, and one step of noise in the middle.

    The noise depends on the number of steps and columns alone, so files of one shape are equal.
    """
    noise = np.random.default_rng([seed, steps, columns]).standard_normal(columns, np.float32)
    with open(path, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (steps, columns)}
        np.lib.format.write_array_header_1_0(file, header)
        start, row = file.tell(), 4 * columns
        file.truncate(start + steps * row)
        file.seek(start + steps // 2 * row)
        file.write(noise.tobytes())


def prepare_hashes(root: Path) -> None:
    """Put the hashes of all feature files into the cache that `TAL_CACHE` names.

    One file of each folder and size is read: files of one size are equal there.
    """
    folders = {}
    for path in sorted(root.rglob("*.npy")):
        folders.setdefault(path.parent, []).append(path)
    for folder, files in folders.items():
        sizes = {path: path.stat().st_size for path in files}
        first = {size: path for path, size in reversed(sizes.items())}
        hashes = content.content_hashes(first.values())
        entries = {path.name: [*content._mark(path), hashes[first[sizes[path]]]] for path in files}
        content._write(cache_root() / "hashes" / f"{digest(os.path.abspath(folder))}.json", entries)


def measured(command: list[str], limit: int, environment: dict[str, str]) -> dict[str, float]:
    """Run a command whose processes may reserve `limit` bytes each.

    Returns:
        `peak` and `reserved`: most resident and most reserved memory of the process and its children
        together, bytes; `seconds`.

    Raises:
        TalError: the command failed.
    """
    reserve = lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    peak = reserved = 0
    with tempfile.TemporaryFile("w+") as log:
        started = time.perf_counter()
        child = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=reserve, env=environment)
        try:
            while child.poll() is None:
                statuses = [_status(process) for process in _tree(child.pid)]
                peak = max(peak, sum(status.get("VmHWM", 0) for status in statuses))
                reserved = max(reserved, sum(status.get("VmData", 0) for status in statuses))
                time.sleep(INTERVAL_S)
        finally:
            child.kill()
            child.wait()
        seconds = time.perf_counter() - started
        log.seek(0)
        output = log.read()
    if child.returncode:
        raise TalError(f"exit code {child.returncode}\n{output[-3000:]}", where=" ".join(command))
    return {"peak": peak, "reserved": reserved, "seconds": seconds}


def _tree(process):
    """Ids of a process and all its descendants."""
    yield process
    with suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            with suppress(OSError):  # the thread ended
                for child in (task / "children").read_text().split():
                    yield from _tree(int(child))


def _status(process):
    """Memory fields of a process in bytes; empty if it has ended."""
    fields = {}
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("VmHWM", "VmData"):
                fields[name] = 1024 * int(value.split()[0])
    return fields


def row_of(name: str, shape: StandIn, folder: Path, given: argparse.Namespace) -> dict:
    """The row of a data set: its shape, and the peaks of `tal train` with each number of workers."""
    root, outs = folder / "data", [folder / f"workers_{workers}" for workers in WORKERS]
    row = {"benchmark": name} | write_stand_in(name, shape, root)
    print(f"{name}: {row['features_gb']:.1f} GB of features", flush=True)
    os.environ["TAL_CACHE"] = str(folder / "cache")
    row["hashed_by_training"] = shape.hashed_by_training
    if not shape.hashed_by_training:
        prepare_hashes(root)
    row |= {"model": given.model, "preset": given.preset, "options": " ".join(given.set)}
    row |= {"fraction": given.fraction, "limit_gb": given.limit}
    for workers, out in zip(WORKERS, outs):
        command = [sys.executable, "-m", "tal_lib", "train", given.model, "--benchmark", name]
        command += ["--root", str(root), "--out", str(out), "--preset", given.preset, "--device", "cpu"]
        command += ["--fraction", str(given.fraction), "--workers", str(workers), "--set", "epochs=1"]
        command += ["--set", "min_steps=0", *(part for option in given.set for part in ("--set", option))]
        result = measured(command, int(1e9 * given.limit), child_environment(1, keep_freed=False))
        row[f"peak_gib_{workers}_workers"] = round(result["peak"] / GIB, 2)
        row[f"reserved_gib_{workers}_workers"] = round(result["reserved"] / GIB, 2)
        row[f"seconds_{workers}_workers"] = round(result["seconds"])
        print(f"  {workers} workers: {result}", flush=True)
    row["steps"] = int(pd.read_csv(outs[0] / "history.csv").step.iloc[-1])
    detections = json.loads((outs[0] / "detections.json").read_text())["results"]
    row["detections"] = sum(map(len, detections.values()))
    for key, file in (("same_weights", "model.pt"), ("same_detections", "detections.json")):
        row[key] = all(filecmp.cmp(outs[0] / file, out / file, shallow=False) for out in outs[1:])
    return row | {"features_gb": round(row["features_gb"], 2)}


def main(arguments=None) -> int:
    """Measure the data sets, and write the table. Returns 1 if weights or detections differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("benchmarks", nargs="*", default=list(STAND_INS), metavar="BENCHMARK")
    parser.add_argument("--model", default="window_cnn")
    parser.add_argument("--preset", default="compact")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of `tal train`; may be repeated",
    )
    parser.add_argument("--limit", type=float, default=8.0, help="GB (default: 8)")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the training videos to train on")
    parser.add_argument("--folder", help="where the temporary folder is made (default: the system's)")
    parser.add_argument("--out", default=PATH, help="CSV (default: that of the results)")
    given = parser.parse_args(arguments)
    if unknown := set(given.benchmarks) - set(STAND_INS):
        parser.error(f"no stand-in of {', '.join(sorted(unknown))}; choose from {', '.join(STAND_INS)}")
    about = {"device_name": device_name(), "git_commit": git_commit()}
    out, same = Path(given.out), True
    for name in given.benchmarks:
        with tempfile.TemporaryDirectory(prefix="tal-memory-", dir=given.folder) as folder:
            row = row_of(name, STAND_INS[name], Path(folder), given) | about
        same = same and row["same_weights"] and row["same_detections"]
        table = pd.read_csv(out) if out.is_file() else pd.DataFrame(columns=list(row))
        rows = {old["benchmark"]: old for old in table.to_dict("records")} | {name: row}
        order = sorted(rows, key=list(STAND_INS).index)
        write_text(out, pd.DataFrame([rows[key] for key in order]).to_csv(index=False))
    print(out)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
