"""The benchmark `rendered`: crowded scenes rendered by this project, with features extracted from the videos.

90 recordings of two to three minutes, 8 actions, two or three actors at once (see `tal_lib.video.crowded`).
`rendered` has two streams of `hog-hof`, appearance and motion; `rendered_cnn` has EfficientNet-Lite0's
features of the same videos. `tal data fetch rendered` makes the files, in the cache folder.
"""

from pathlib import Path

from tal_lib.data import videos
from tal_lib.data.benchmark import Benchmark
from tal_lib.errors import TalError
from tal_lib.files import cache_root

TRAIN, TEST, SEED = 60, 30, 0
BACKBONES = {"rendered": "hog-hof", "rendered_cnn": "efficientnet-lite0"}  # benchmark -> backbone
VERSION = 2  # of the scenes; raised with every change of the pictures


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
    return benchmark
