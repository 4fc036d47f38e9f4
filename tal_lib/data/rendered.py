"""The benchmark `rendered`: crowded scenes rendered by this project, with features extracted from the videos.

90 recordings of two to three minutes, 8 actions, two or three actors at once (see `tal_lib.video.crowded`).
`rendered` has two streams of `hog-hof`, appearance and motion; `rendered_cnn` has EfficientNet-Lite0's
features of the same videos. `tal data fetch rendered` makes the files, in the cache folder.

The pictures are the same on every machine. What the encoder makes of them may differ in single frames, by
the instructions of the processor, and so may the features. The identity of the data (`data_hash`) is
therefore the version of the scenes, if the features agree with the committed statistics of each recording
(`rendered.json`). Other features are identified by their contents.
"""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np

from tal_lib.data import videos
from tal_lib.data.benchmark import Benchmark
from tal_lib.errors import TalError
from tal_lib.files import cache_root, digest

TRAIN, TEST, SEED = 60, 30, 0
BACKBONES = {"rendered": "hog-hof", "rendered_cnn": "efficientnet-lite0"}  # benchmark -> backbone
VERSION = 3  # of the scenes; raised with every change of the pictures or of their encoding
STATISTICS = Path(__file__).with_suffix(".json")  # backbone -> recording -> `statistics`
# in units of the features, whose standard deviations are 0.08 and 0.7. With AVX-512, x264 writes another file
# each time (`asm=AVX2` would end it): 19 of 90 recordings differ by up to 2.5e-4, others by less than 1e-5.
# With another number of threads they differ by up to 1e-3.
AGREE = 5e-4


def folder() -> Path:
    """Where the videos and features are; they can be made again from the seed."""
    return cache_root() / "rendered" / str(VERSION)


def features_of(name: str) -> Path:
    """The file that exists once a benchmark's features are complete: their hash."""
    return folder() / BACKBONES[name] / "features.sha256"


def load(root: Path, name: str = "rendered") -> Benchmark:
    """The benchmark, from the cache folder; `root` is not used.

    Raises:
        TalError: the videos were not rendered yet.
    """
    place = features_of(name).parent
    if not features_of(name).is_file():
        raise TalError(
            f"{name} has not been generated yet",
            where=place,
            remedy=f"Run: tal data fetch {name} (some minutes).",
        )
    benchmark = videos.load_folder(place)
    benchmark.name = name
    benchmark._source_hash = _identity(benchmark, BACKBONES[name], place / "features", benchmark._source_hash)
    return benchmark


def statistics(features: np.ndarray, streams: Mapping[str, int]) -> list[float]:
    """Mean and standard deviation of each stream of a recording's features (T, D). streams: name → width."""
    parts = np.split(features.astype(np.float64), np.cumsum(list(streams.values()))[:-1], axis=1)
    return [round(float(value), 7) for part in parts for value in (part.mean(), part.std())]


@cache
def _known() -> dict[str, dict[str, list[float]]]:
    return json.loads(STATISTICS.read_text(encoding="utf-8"))


def _identity(benchmark, backbone, features, contents) -> Callable[[], str]:
    """A function that computes the hash of the features: of their version, or of their contents."""

    def compute():
        known, streams = _known().get(backbone, {}), benchmark.feature_spec.streams
        names = benchmark.recordings()
        files = [features / f"{name}.npy" for name in names]
        if sorted(names) == sorted(known) and all(file.is_file() for file in files):
            here = [statistics(np.load(file), streams) for file in files]
            apart = np.abs(np.array(here) - np.array([known[name] for name in names]))
            if apart.max() <= AGREE:
                return digest("rendered", VERSION, backbone)
        return contents()

    return compute
