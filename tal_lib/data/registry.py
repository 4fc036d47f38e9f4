"""The benchmarks by name."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

from tal_lib import plugins
from tal_lib.data import hapt, synthetic, videos
from tal_lib.data.benchmark import Benchmark
from tal_lib.data.subsets import PRIOR
from tal_lib.errors import TalError
from tal_lib.files import checked_name, data_root


@dataclass(frozen=True)
class Entry:
    """How to load a benchmark, and where it comes from."""

    load: callable  # data root -> Benchmark
    about: str
    origin: str
    file: str | None  # below the data root; None: nothing needed


def _with_prior_subsets(name, root):
    benchmark = BENCHMARKS[name].load(root)
    benchmark.name, benchmark.root = name + PRIOR, root
    return benchmark


BENCHMARKS = {
    "synthetic": Entry(
        lambda root: synthetic.load(), "generated, two streams, 20 classes", "made from a seed", None
    ),
    "hapt": Entry(
        hapt.load,
        "61 smartphone recordings, 12 classes",
        "UCI 341, CC BY 4.0: `tal data fetch hapt`",
        "hapt/hapt.zip",
    ),
    "hapt_validation": Entry(
        partial(hapt.load, validation=True),
        "hapt's training people only, a quarter held out as test; for design decisions",
        "as hapt",
        "hapt/hapt.zip",
    ),
    "thumos14": Entry(
        videos.load_thumos14,
        "412 videos, 20 classes",
        "your annotations and features",
        "thumos14/thumos14.json",
    ),
    "activitynet": Entry(
        videos.load_activitynet,
        "v1.3, 14,950 videos, 200 classes",
        "your annotations and features",
        "activitynet",
    ),
}
BENCHMARKS |= {
    name + PRIOR: replace(
        BENCHMARKS[name],
        load=partial(_with_prior_subsets, name),
        about=f"{name}, with the training subsets of Warchocki et al., 2023",
    )
    for name in ("thumos14", "activitynet")
}


def register_benchmark(
    name: str, load, *, about: str = "", origin: str = "a plug-in", file: str | None = None
) -> None:
    """Make a benchmark loadable as `name`, in sweeps too: what a plug-in calls when it is imported.

    Args:
        load: data folder → Benchmark; about, origin: for the list of benchmarks.
        file: what it needs below the data folder.

    Raises:
        TalError: the name is taken, or cannot be part of a file's name.
    """
    checked_name(name, what="benchmark")
    if name in BENCHMARKS and getattr(BENCHMARKS[name].load, "__module__", None) != load.__module__:
        raise TalError(f"two benchmarks are called {name!r}", remedy="Rename one of them.")
    BENCHMARKS[name] = Entry(load, about, origin, file)


def load_benchmark(name: str, root: str | Path | None = None) -> Benchmark:
    """Load a benchmark.

    Args:
        name: `synthetic`, `hapt`, `hapt_validation`, `thumos14`, `activitynet`, or one of the last two with `_prior`; or a folder with
            `annotations.json` and `features/`.
        root: data folder; `$TAL_DATA`, `data/` or `../shared/data` if None.
    """
    plugins.load()
    if name not in BENCHMARKS and Path(name).is_dir():
        return videos.load_folder(Path(name))
    if name not in BENCHMARKS:
        raise TalError(
            f"no benchmark {name!r}", remedy=f"Choose from {', '.join(BENCHMARKS)}, or give a folder."
        )
    return BENCHMARKS[name].load(Path(root) if root is not None else data_root())


@dataclass(frozen=True)
class Shape:
    """What a model's cost depends on: feature columns D, classes K, seconds between steps."""

    input_dim: int
    num_classes: int
    stride_s: float


# as published: I3D of two streams every 4 frames (30 a second); TSP every 16 frames (Alwassel et al., TSP, ICCVW 2021)
_PUBLISHED = {"thumos14": Shape(2048, 20, 4 / 30), "activitynet": Shape(512, 200, 16 / 30)}


def shape_of(name: str, root: str | Path | None = None) -> Shape:
    """The shape of a benchmark's features; of thumos14 and activitynet the published one, for which no data is needed."""
    if name in _PUBLISHED:
        return _PUBLISHED[name]
    benchmark = load_benchmark(name, root)
    return Shape(benchmark.feature_spec.dim, len(benchmark.classes), benchmark.feature_spec.stride_s)


def list_benchmarks(root: str | Path | None = None) -> pd.DataFrame:
    """One row a benchmark: name, what it is, where it comes from, whether its files are here."""
    plugins.load()
    root = Path(root) if root is not None else data_root()
    return pd.DataFrame(
        [
            {
                "benchmark": name,
                "about": entry.about,
                "origin": entry.origin,
                "here": "yes" if entry.file is None or (root / entry.file).exists() else "no",
            }
            for name, entry in BENCHMARKS.items()
        ]
    )


def check_benchmark(name: str, root: str | Path | None = None) -> pd.DataFrame:
    """Load every recording; one row for each thing missing, broken or repaired: `recording, problem`."""
    benchmark = load_benchmark(name, root)
    rows = [
        {"recording": line.split(": ")[0], "kind": "as published", "problem": line.split(": ", 1)[1]}
        for line in benchmark.notes
    ]
    for recording in benchmark.recordings():
        try:
            steps = len(benchmark.features(recording))
            benchmark.forget(recording)
        except TalError as error:
            rows.append({"recording": recording, "kind": "broken", "problem": str(error)})
            continue
        stride_s, window_s = benchmark.time_axis(recording)
        covered = (steps - 1) * stride_s + window_s
        if abs(covered - benchmark.duration(recording)) > max(5.0, 0.1 * benchmark.duration(recording)):
            rows.append(
                {
                    "recording": recording,
                    "kind": "suspect",
                    "problem": f"{steps} steps cover {covered:.1f} s of {benchmark.duration(recording):.1f} s",
                }
            )
    return pd.DataFrame(rows, columns=["recording", "kind", "problem"])
