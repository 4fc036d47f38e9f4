"""Videos → feature files and their spec, in the format that `load_benchmark` reads."""

import os
from collections import deque
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice, repeat, takewhile
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from tal_lib.data.features import SUFFIXES
from tal_lib.data.loading import prefetched
from tal_lib.errors import TalError, one_line
from tal_lib.files import atomic_path, write_json
from tal_lib.process.parts import Timed, untimed
from tal_lib.reading import read_json
from tal_lib.video.backbones import WINDOW, Backbone, backbone
from tal_lib.video.frames import Reader, decoded, videos_in
from tal_lib.writing import claim, listed, may_overwrite, overwriting

BATCH = 32  # frames per call of the backbone


@dataclass(frozen=True)
class Sampling:
    """How frames become feature steps."""

    fps: float = 16.0  # frames per second that are used, whatever the file's rate
    window: int = WINDOW  # described frames per step
    stride: int = 8  # described frames between the starts of two steps
    skip: int = 1  # every so many frames one is described (Ullah et al., IEEE Access 2018: 6)
    max_frames: int = 0  # described frames at most, from the start of the video; 0: all (there: 15)

    def __post_init__(self):
        if not (self.fps > 0 and min(self.window, self.stride, self.skip) >= 1 and self.max_frames >= 0):
            raise TalError(
                f"fps={self.fps}, window={self.window}, stride={self.stride}, skip={self.skip}, "
                f"max_frames={self.max_frames}",
                remedy="All must be positive; max_frames may be 0.",
            )

    @property
    def rate(self) -> float:
        """Described frames per second."""
        return self.fps / self.skip

    @property
    def stride_s(self) -> float:
        """Seconds between steps."""
        return self.stride / self.rate

    @property
    def window_s(self) -> float:
        """Seconds that a step covers."""
        return self.window / self.rate


class Steps:
    """Turns frames into feature steps. It keeps the descriptions of one window, and only the last picture."""

    def __init__(self, model: Backbone, sampling: Sampling):
        self.model, self.sampling = model, sampling
        self.described, self.before, self.count = deque(maxlen=sampling.window), None, 0

    def push(self, pictures: np.ndarray) -> list[np.ndarray]:
        """The steps (D,) that these pictures (n, H, W, 3) complete."""
        completed = []
        for row in self.model.describe(pictures, self.before):
            self.described.append(row)
            self.count += 1
            if (
                self.count >= self.sampling.window
                and (self.count - self.sampling.window) % self.sampling.stride == 0
            ):
                completed.append(self.model.pool(np.stack(self.described)))
        self.before = pictures[-1]
        return completed

    @property
    def missing(self) -> int:
        """Pictures until the next step is complete."""
        window, stride = self.sampling.window, self.sampling.stride
        return window - self.count if self.count < window else stride - (self.count - window) % stride

    def rest(self) -> list[np.ndarray]:
        """The one step of a video that is shorter than a window."""
        return [self.model.pool(np.stack(self.described))] if 0 < self.count < self.sampling.window else []


def feature_steps(
    reader: Reader, model: Backbone, sampling: Sampling, *, ahead: bool = True, timed: Timed = untimed
) -> Generator[np.ndarray, None, None]:
    """Yield the feature steps (D,) of a video, in order. At most three batches of pictures are in memory.

    Args:
        reader: at the rate and size of the sampling and the backbone.
        ahead: a thread decodes the next pictures while the present ones are described.
        timed: context manager that times `decoding` and `features`.
    """
    steps = Steps(model, sampling)
    pictures = decoded(islice(reader, sampling.max_frames or None), timed)
    batches = prefetched(repeat(pictures), partial(_next_batch, model=model, timed=timed), int(ahead))
    with closing(batches):
        for batch in takewhile(len, batches):
            with timed("features"):
                completed = steps.push(np.stack(batch))
            yield from completed
    yield from steps.rest()


def _next_batch(pictures, model, timed):
    """At most `BATCH` pictures, as small as the backbone takes them."""
    batch = []
    for picture in islice(pictures, BATCH):
        with timed("features"):
            batch.append(model.prepare(picture))
    return batch


def features_of(path: str | Path, model: Backbone, sampling: Sampling) -> tuple[np.ndarray, Reader]:
    """(features (T, D), float32, reader) of a video. The reader says how much of the video could be read."""
    reader = Reader(path, sampling.rate, model.size)
    return np.stack(list(feature_steps(reader, model, sampling))).astype(np.float32), reader


def extract(
    source: str | Path | list[Path],
    out: str | Path,
    name: str = "hog-hof",
    sampling: Sampling | None = None,
    *,
    workers: int = 1,
    again: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Write `<video>.npy` and `spec.json` for a video, or for all videos of a folder.

    Existing features are kept unless `again` is set.

    Returns:
        one row per video: `video, steps, seconds, problem, new`. A video that cannot be read has a problem
            and no file. The other videos are still extracted.

    Raises:
        TalError: the backbone or folder does not exist, two videos have one name, or `out` holds features of
            another kind.
    """
    sampling, out = sampling or Sampling(), Path(out)
    paths = source if isinstance(source, list) else videos_in(source)
    names = pd.Series([path.stem for path in paths])
    if names.duplicated().any():
        raise TalError(
            f"two videos are called {names[names.duplicated()].iloc[0]}",
            where=paths[0].parent,
            remedy="Rename one of them.",
        )
    model = backbone(name)
    spec = {
        "streams": dict(model.streams),
        "stride_s": sampling.stride_s,
        "window_s": sampling.window_s,
        "fps": sampling.rate,
        "backbone": name,
    } | ({"max_frames": sampling.max_frames} if sampling.max_frames else {})
    todo = [path for path in paths if again or not _kept(out / f"{path.stem}.npy")]
    names = [f"{path.stem}.npy" for path in todo]
    claim(out, names, sources=paths)
    _same_kind(out, spec, names)
    rows = {
        path: {"video": path.stem, "steps": None, "seconds": None, "problem": "", "new": False}
        for path in paths
    }
    for path, row in _results(todo, out, name, sampling, workers, progress):
        rows[path] |= row
    return pd.DataFrame(rows.values())


def _kept(path):
    """Whether existing features are kept. With `overwriting`, only those that this program wrote are kept."""
    return listed(path) if may_overwrite() else path.is_file()


def _same_kind(out, spec, new):
    """Check that the folder's spec is the same, or write the spec if the folder has none.

    A folder holds features of one kind only.
    """
    known = out / "spec.json"
    if os.path.lexists(known):
        if read_json(known, what="feature spec") != spec:
            raise TalError(
                "contains features with other settings", where=known, remedy="Choose another folder."
            )
        return
    others = (path for path in sorted(out.iterdir()) if path.name not in new)
    unknown = next(filter(_holds_features, others), None)
    if unknown:
        raise TalError(
            f"holds features ({unknown.name}) but no spec.json that describes them",
            where=out,
            remedy="Choose another folder.",
        )
    write_json(known, spec)


def _holds_features(path):
    return path.suffix.lower() in set(SUFFIXES) - {".csv"} and not path.name.startswith(".")


def _results(todo, out, name, sampling, workers, progress):
    """Yield (path, row) of each video when it is finished."""
    bar = tqdm(total=len(todo), unit="video", disable=not progress, mininterval=1)
    if workers > 1 and len(todo) > 1:
        with _Workers(min(workers, len(todo))) as pool:
            for path, row in pool.run(todo, out, name, sampling, may_overwrite()):
                bar.update()
                yield path, row
    else:
        for path in todo:
            row = _extract_file(path, out, name, sampling, may_overwrite())
            bar.update()
            yield path, row
    bar.close()


class _Workers:
    """Worker processes. One thread waits for each process.

    If a process dies, only its current video fails, and a new process replaces it.
    """

    def __init__(self, number):
        self.threads, self.idle = ThreadPoolExecutor(number), SimpleQueue()
        for _ in range(number):
            self.idle.put(self._process())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.threads.shutdown(cancel_futures=True)
        while not self.idle.empty():
            self.idle.get().shutdown()

    def run(self, todo, *arguments):
        """Yield (path, row) of each video when it is finished."""
        jobs = {self.threads.submit(self._in_process, path, *arguments): path for path in todo}
        for job in as_completed(jobs):
            yield jobs[job], job.result()

    def _process(self):
        return ProcessPoolExecutor(1, mp_context=get_context("spawn"))

    def _in_process(self, path, *arguments):
        process = self.idle.get()
        try:
            return process.submit(_extract_file, path, *arguments).result()
        except BrokenProcessPool:
            process.shutdown(wait=False)
            process = self._process()
            return {"problem": one_line(f"{path}: its process was killed (was it out of memory?)")}
        finally:
            self.idle.put(process)


_loaded: dict[str, Backbone] = {}  # a worker keeps its backbone for all its videos


def _extract_file(path, out, name, sampling, overwrite):
    model = _loaded.get(name) or _loaded.setdefault(name, backbone(name))
    try:
        features, reader = features_of(path, model, sampling)
    except TalError as error:
        return {"problem": str(error)}
    except Exception as error:  # decoders raise many kinds of errors; the other videos continue
        return {"problem": one_line(f"{path}: cannot be read ({type(error).__name__}: {error})")}
    with overwriting(overwrite), atomic_path(out / f"{path.stem}.npy") as temporary:
        with open(temporary, "wb") as file:
            np.save(file, features)
    return {"steps": len(features), "seconds": reader.seconds, "problem": reader.problem, "new": True}
