"""`spec.json` of a feature folder: which streams its files hold, and how their steps relate to time.

    {"streams": {"rgb": 1024, "flow": 1024}, "stride_frames": 4, "window_frames": 16, "fps": 30}
    {"streams": {"features": 400}, "stride_s": 0.5, "window_s": 1.0}
    {"streams": {"features": 512}, "resize": 192}
    {"streams": {"features": 512}, "resize": 192, "stride_s": 1.066667}

`streams` gives the columns of each stream, in column order. One of the following gives the time axis:

- `stride_s`: seconds between steps; `window_s`: seconds that a step sees (default: the stride).
- `stride_frames`, `window_frames`: the same in video frames. The frame rate is the recording's own `fps`
  in the annotations, else `fps` here. `"30000/1001"` is a rate. Features of videos that were first brought to
  one rate, as TSP's (15), have a stride in seconds.
- `resize`: every recording is resampled to so many steps, which share its duration equally. With a stride
  too, they share the time that the features as extracted cover, as in ActionFormer's code.

Optional, for features that lie elsewhere or were published for another program (`tal data import`):

- `folders`: stream → folder of its files; relative paths start at the folder of `spec.json`.
- `prefix`, `suffix`: what the files' names have around the recording's id.
- `every`: use every n-th step of a file. The strides are those of the file.
- `tious`: the tIoU thresholds of the benchmark's mAP.

`backbone` says how the features were made, `max_frames` how many frames of a video were used at most,
`max_steps` the longest crop of the published training; nothing is read from them.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import AfterValidator, Field

from tal_lib.data.benchmark import FeatureSpec
from tal_lib.errors import TalError, short
from tal_lib.reading import read_json
from tal_lib.validation import Count, Fraction, Rate, validate

NAME = "spec.json"
STRIDES = ("stride_s", "stride_frames")
TIMING = (*STRIDES, "resize")
MOST_STEPS = 20_000  # limit of `resize`: published features have 100 to 2,304
MOST_COLUMNS = 1_000_000
SHORTEST_WINDOW = 1e-3  # frames: stands for features whose first step is centred at frame 0
EXAMPLE = '{"streams": {"features": 400}, "stride_s": 0.5}'


def _stream(name):
    if not name.strip() or not name.isprintable() or "/" in name or name.startswith("."):
        raise ValueError("a name of a stream: text without / that does not begin with a dot")
    return name


def _streams(streams):
    if sum(streams.values()) > MOST_COLUMNS:
        raise ValueError(f"at most {MOST_COLUMNS:,} columns together")
    return streams


def _affix(text):
    if not text.isprintable() or "/" in text or "\\" in text:
        raise ValueError("a part of a file's name, without /")
    return text


def _path(text):
    if not text.strip() or not text.isprintable():
        raise ValueError("the path of a folder")
    return text


def _increasing(tious):
    if list(tious) != sorted(set(tious)):
        raise ValueError("thresholds in increasing order, such as [0.3, 0.4, 0.5]")
    return tious


Seconds = Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)]
Frames = Annotated[float, Field(ge=SHORTEST_WINDOW, le=1e9, allow_inf_nan=False)]
Columns = Annotated[int, Field(ge=1, le=MOST_COLUMNS)]
Steps = Annotated[int, Field(ge=1, le=MOST_STEPS)]
Streams = Annotated[
    dict[Annotated[str, AfterValidator(_stream)], Columns], Field(min_length=1), AfterValidator(_streams)
]
FolderPath = Annotated[str, AfterValidator(_path)]
Affix = Annotated[str, AfterValidator(_affix)]
Thresholds = Annotated[tuple[Fraction, ...], Field(min_length=1, max_length=100), AfterValidator(_increasing)]


@dataclass(frozen=True, kw_only=True)
class FolderSpec:
    """The contents of `spec.json`; the fields are described at the top of this file."""

    streams: Streams
    stride_s: Seconds | None = None
    window_s: Seconds | None = None
    stride_frames: Frames | None = None
    window_frames: Frames | None = None
    resize: Steps | None = None
    fps: Rate | None = None
    backbone: str | None = None
    folders: dict[str, FolderPath] | None = None
    prefix: Affix = ""
    suffix: Affix = ""
    every: Steps = 1
    tious: Thresholds | None = None
    max_steps: Count | None = None
    max_frames: Count | None = None

    @property
    def timing(self) -> tuple[str, ...]:
        """The fields of `TIMING` that are set."""
        return tuple(name for name in TIMING if getattr(self, name) is not None)


def read_spec(folder: Path, default: FolderSpec | None = None) -> FolderSpec:
    """`spec.json` of a feature folder.

    Args:
        default: used if the file is missing. Streams, frame rate and time axis of the file replace those of
            the default.

    Raises:
        TalError: neither file nor default, a value of another type, or not exactly one time axis.
    """
    path = Path(folder) / NAME
    if not path.is_file() and default is not None:
        return default
    content = read_json(path, what="feature spec", remedy=f"Write there, for example, {EXAMPLE}.")
    remedy = f"Expected, for example, {EXAMPLE}. tal_lib/data/spec.py describes it."
    if not isinstance(content, dict):
        raise TalError(
            f"a {type(content).__name__}, not an object of names and values", where=path, remedy=remedy
        )
    content = {name: value for name, value in content.items() if value is not None}
    if default is not None:
        content = {"streams": dict(default.streams)} | content
    spec = validate(FolderSpec, content, where=path, name="spec entry", remedy=None)
    _check_folders(spec, path)
    timing = spec.timing
    stray = [
        f"{window} without {stride}"
        for window, stride in (("window_s", "stride_s"), ("window_frames", "stride_frames"))
        if getattr(spec, window) is not None and getattr(spec, stride) is None
    ]
    if set(STRIDES) <= set(timing) or stray:
        raise TalError(
            f"gives {stray[0] if stray else ' and '.join(STRIDES)}",
            where=path,
            remedy=f"Give one of {', '.join(TIMING)}, or resize and one of the strides; window_s goes with "
            "stride_s, window_frames with stride_frames.",
        )
    if not timing:
        if default is None:
            raise TalError(f"gives none of {', '.join(TIMING)}", where=path, remedy=remedy)
        timing = {name: getattr(default, name) for name in (*TIMING, "window_s", "window_frames")}
        spec = replace(spec, **timing, fps=spec.fps or default.fps)
    elif default is not None and spec.fps is None:
        spec = replace(spec, fps=default.fps)
    return spec


def _check_folders(spec, path):
    if spec.folders is None:
        return
    if spec.folders.keys() != spec.streams.keys():
        raise TalError(
            f"folders names {short(sorted(spec.folders))}, streams {short(sorted(spec.streams))}",
            where=path,
            remedy="Give each stream its folder.",
        )
    for stream, folder in spec.folders.items():
        place = path.parent / Path(folder).expanduser()
        if not place.is_dir():
            raise TalError(
                f"the folder of stream {stream} is not there: {place}",
                where=path,
                remedy="Correct its path in folders.",
            )


def time_axis(
    spec: FolderSpec,
    recordings: pd.DataFrame,
    where: object,
    steps_of: Callable[[str], int | None] = lambda recording: None,
) -> tuple[pd.DataFrame, FeatureSpec]:
    """The recordings, with `stride_s` and `window_s` if these differ, and the feature spec for models.

    Args:
        recordings: `recording, duration` (s), `fps` (NaN if not stated); where: the spec's file, for the
            error.
        steps_of: recording → steps of its features as extracted (None: not known, its duration counts). Asked
            if the spec has both `resize` and a stride.

    Raises:
        TalError: strides in frames, and a recording without frame rate.
    """
    recordings = recordings.copy()
    if spec.stride_s is not None:
        stride_s, window_s = spec.stride_s, spec.window_s or spec.stride_s
    elif spec.stride_frames is not None:
        recordings, stride_s, window_s = _from_frames(spec, recordings, where)
    if spec.resize is not None:
        covered = recordings.duration.astype(float)
        if len(spec.timing) > 1:
            counts = recordings.recording.map(steps_of).astype(float)
            strides, windows = (
                recordings[name] if name in recordings else value
                for name, value in (("stride_s", stride_s), ("window_s", window_s))
            )
            covered = ((counts - 1) * strides + windows).fillna(covered)
        recordings["stride_s"] = recordings["window_s"] = covered / spec.resize
        stride_s = window_s = float(recordings.stride_s.median()) if len(recordings) else 1.0
    elif spec.every > 1:
        stride_s *= spec.every
        if "stride_s" in recordings:
            recordings["stride_s"] *= spec.every
    return recordings, FeatureSpec(stride_s=stride_s, window_s=window_s, streams=dict(spec.streams))


def _from_frames(spec, recordings, where):
    """The recordings with their stride and window in seconds, and the usual stride and window."""
    window_frames = spec.window_frames or spec.stride_frames
    rates = recordings.fps.astype(float)
    unknown = recordings.recording[rates.isna()]
    if len(unknown) and spec.fps is None:
        raise TalError(
            f"stride_frames needs the frame rate, and {len(unknown):,} of {len(recordings):,} recordings "
            f"have no fps in the annotations (first {unknown.iloc[0]})",
            where=where,
            remedy='Add it here, such as "fps": 25, or give stride_s in seconds.',
        )
    rates = rates.fillna(spec.fps) if spec.fps is not None else rates
    recordings["stride_s"], recordings["window_s"] = spec.stride_frames / rates, window_frames / rates
    usual = spec.fps or float(rates.median())
    return recordings, spec.stride_frames / usual, window_frames / usual


def example_spec(
    shapes: Mapping[str, Mapping[str, tuple[int, ...]]], durations: Mapping[str, float]
) -> tuple[str, str]:
    """A `spec.json` guessed from features whose spec is missing, and a note on what was guessed.

    The column axis is the one whose size all files share. The stride is chosen so that the steps cover the
    durations. If all recordings have the same number of steps but different durations, they were resized.

    Args:
        shapes: stream → recording id → shape of its array; durations: recording id → seconds.
    """
    streams, steps = {}, {}
    for stream, arrays in shapes.items():
        axis = _columns_axis(list(arrays.values()))
        first = next(iter(arrays.values()))
        streams[stream] = int(first[axis]) if first else 1
        steps = {name: shape[1 - axis] if len(shape) == 2 else 1 for name, shape in arrays.items()}
    seconds = np.array([durations[name] for name in steps], float)
    counts = np.array([max(1, count) for count in steps.values()], float)
    if len(counts) > 1 and len(set(counts)) == 1 and seconds.max() > 1.1 * seconds.min():
        timing, guess = {"resize": int(counts[0])}, "every file has as many steps"
    else:
        stride = float(f"{np.median(seconds / counts):.3g}") if len(counts) else 0.5
        timing, guess = (
            {"stride_s": stride},
            "stride_s is only estimated from steps and durations: give yours",
        )
    return json.dumps({"streams": streams} | timing), guess


def _columns_axis(shapes):
    """The column axis (0 or 1) of two-dimensional arrays: the axis whose size they share."""
    whole = [shape for shape in shapes if len(shape) == 2]
    if not whole:
        return 0
    shared = [len({shape[axis] for shape in whole}) for axis in (0, 1)]
    return 0 if shared[0] < shared[1] else 1
