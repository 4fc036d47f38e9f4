"""Makes the benchmark `rendered`: crowded scenes as encoded videos, and features really extracted from them.

The pictures follow from a seed. The encoder and the networks may differ by a last digit between machines, so
the folder keeps a hash of its features (`features.sha256`), which results can be compared by.
"""

import hashlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from tal_lib.data import rendered
from tal_lib.errors import TalError
from tal_lib.files import atomic_path, write_json
from tal_lib.video import crowded
from tal_lib.video.extract import Sampling, extract
from tal_lib.video.frames import write_video
from tal_lib.writing import claim, listed, may_overwrite, overwriting

# both give a step every 0.5 s that covers 1 s; the network sees two pictures of it
SAMPLINGS = {
    "hog-hof": Sampling(fps=10, window=10, stride=5),
    "efficientnet-lite0": Sampling(fps=2, window=2, stride=1),
}


def make(
    folder: str | Path,
    *,
    train: int = rendered.TRAIN,
    test: int = rendered.TEST,
    seed: int = rendered.SEED,
    backbones: tuple[str, ...] = ("hog-hof",),
    workers: int = 2,
    progress: bool = True,
) -> list[Path]:
    """Render, encode and describe the recordings. What is there already is kept.

    Args:
        folder: gets `videos/*.mp4`, and for each backbone a folder with `annotations.json`,
            `features/*.npy` and `features.sha256`.
        backbones: of `SAMPLINGS`.

    Returns:
        the benchmark folder of each backbone.
    """
    folder = Path(folder)
    names = [("train", number) for number in range(train)] + [("test", number) for number in range(test)]
    names = {f"{split}_{number:03d}": (split == "test", number) for split, number in names}
    missing = [name for name in names if not listed(folder / "videos" / f"{name}.mp4")]
    claim(folder, [f"videos/{name}.mp4" for name in missing])
    jobs = [(folder / "videos" / f"{name}.mp4", (seed, *names[name]), may_overwrite()) for name in missing]
    for _ in tqdm(_each(jobs, workers), total=len(jobs), unit="video", disable=not progress, mininterval=1):
        pass
    videos = [folder / "videos" / f"{name}.mp4" for name in names]
    made = []
    for backbone in backbones:
        place = folder / backbone
        write_json(place / "annotations.json", {"version": "rendered", "database": _database(names, seed)})
        extracted = extract(
            videos, place / "features", backbone, SAMPLINGS[backbone], workers=workers, progress=progress
        )
        if problems := list(extracted.problem[extracted.problem != ""]):
            raise TalError(problems[0], remedy="Delete a damaged video, and run the command again.")
        with atomic_path(place / "features.sha256") as temporary:
            Path(temporary).write_text(features_hash(place / "features", list(names)) + "\n")
        made.append(place)
    return made


def features_hash(folder: Path, names: list[str]) -> str:
    """SHA-256 over the feature arrays of the recordings, in the order given."""
    total = hashlib.sha256()
    for name in names:
        total.update(np.load(folder / f"{name}.npy", mmap_mode="r").tobytes())
    return total.hexdigest()


def _database(names, seed):
    database = {}
    for name, (testing, number) in names.items():
        scene = crowded.play(np.random.default_rng([seed, testing, number])).scene
        database[name] = {
            "subset": "testing" if testing else "training",
            "duration": scene.seconds,
            "fps": crowded.FPS,
            "annotations": [{"segment": [start, end], "label": label} for start, end, label in scene.actions],
        }
    return database


def _each(jobs, workers):
    """Render in worker processes; yield when a video is finished."""
    if workers <= 1:
        yield from (_render(*job) for job in jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_render, *zip(*jobs))


def _render(path, key, overwrite):
    rng = np.random.default_rng(list(key))
    timeline = crowded.play(rng)
    with overwriting(overwrite):
        write_video(path, crowded.draw(timeline, rng), crowded.FPS)
