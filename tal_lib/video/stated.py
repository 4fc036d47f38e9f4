"""What the `spec.json` of feature files says of them, compared with what a model was trained on.

A file without a `spec.json` does not tell the stride of its steps: that of the model is then assumed, with a
warning. Steps that the training skipped are skipped. What contradicts the model is an error.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from tal_lib.data.benchmark import FeatureSpec
from tal_lib.data.spec import NAME, FolderSpec, read_spec
from tal_lib.errors import TalError, one_line

SAME_TIMES = 0.01  # largest relative difference of equal strides or windows
GENERIC = "features"  # a stream of this name may be any
REMEDY = "Extract features as for the model, or correct spec.json."


@dataclass(frozen=True)
class Stated:
    """What is known of feature files.

    Attributes:
        every: folder of files → n, where only every n-th step of a file is used.
        warning: which stride is assumed; empty if `spec.json` states it.
    """

    every: dict[Path, int]
    warning: str = ""


def spec_of(source: Path) -> tuple[Path | None, FolderSpec | None]:
    """(path, content) of the `spec.json` of a feature file or folder, or (None, None).

    It lies in the folder, or in the one above. There, its `folders` are left out: they hold other files.

    Raises:
        TalError: a damaged file in the folder.
    """
    top = _top(source)
    place, stated = _nearest(top, top)
    if place is not None and stated is not None and place.parent != Path(os.path.abspath(source)):
        stated = replace(stated, folders=None)
    return place, stated


def stated_for(
    source: Path,
    folders: Iterable[Path],
    spec: FeatureSpec,
    stream: str | None = None,
    *,
    apart: bool = False,
) -> Stated:
    """Compare the `spec.json` of feature files with a model's spec.

    The nearest one counts: in the folder of the files, or above it. The last is one above the source. If that
    of the source names other folders, it counts for the files there.

    Args:
        source: the file or folder that the user gave.
        folders: those that hold the files.
        spec: of the model.
        stream: the model's only stream; None: all streams.
        apart: every stream has its own files, so their names and columns were compared already.

    Raises:
        TalError: another stride, window or other streams than the model's, or features that were resized.
    """
    top, of_source = _top(source), spec_of(source)
    elsewhere = of_source[1] is not None and of_source[1].folders is not None
    every, unknown = {}, ""
    for folder in folders:
        place, stated = of_source if elsewhere else _nearest(folder, top)
        if place is None or stated is None:
            every[folder], unknown = 1, unknown or f"{source}: no {NAME} states the stride of the features"
        else:
            if not apart:
                _check_streams(stated, place, folder, spec, stream)
            skipped = _skipped(stated, place, spec)
            if not skipped:
                unknown = unknown or f"{place}: stride_frames without fps"
            every[folder] = stated.every * (skipped or 1)
        first = next(iter(every.values()))
        if apart and every[folder] != first:  # the streams of a recording are joined step by step
            raise TalError(
                f"a stride of {spec.stride_s / every[folder]:g} s, another stream has "
                f"{spec.stride_s / first:g} s",
                where=place or folder,
                remedy=REMEDY,
            )
    if not unknown:
        return Stated(every)
    example = {"streams": dict(spec.streams), "stride_s": spec.stride_s, "window_s": spec.window_s}
    return Stated(
        every,
        f"{one_line(unknown)}. The model's stride of {spec.stride_s:g} s and window of {spec.window_s:g} s "
        "are assumed: features of another stride get wrong times. "
        f"State theirs in {NAME} beside the files, such as {json.dumps(example)}.",
    )


def _top(source):
    """The folder that a user gave, or that of the file."""
    return source if source.is_dir() else source.parent


def _nearest(folder, top):
    """(path, content) of the nearest `spec.json`, or (None, None)."""
    last = Path(os.path.abspath(top)).parent
    for place in (here := Path(os.path.abspath(folder)), *here.parents):
        if (place / NAME).is_file():
            try:
                return place / NAME, read_spec(place)
            except TalError:
                if place != last:
                    raise
                break  # a file of this name that is nothing of ours
        if place == last:
            break
    return None, None


def _check_streams(stated, place, folder, spec, stream):
    """Refuse files whose columns are not those of the model, or of all streams of its training."""
    whole = dict(spec.streams)
    accepted = [whole] if stream is None else [{stream: whole[stream]}, whole]
    given, here = dict(stated.streams), Path(os.path.abspath(folder))
    named = {
        name
        for name, path in (stated.folders or {}).items()
        if here.is_relative_to(os.path.abspath(place.parent / Path(path).expanduser()))
    }
    if not named and folder.name in given and here != place.parent:
        named = {folder.name}
    if named:  # the folder of one stream, or of some
        given = {name: width for name, width in given.items() if name in named}
    for columns in accepted:
        if list(given.items()) == list(columns.items()):
            return
        if GENERIC in (*given, *columns) and sum(given.values()) == sum(columns.values()):
            return
    raise TalError(
        f"streams {_text(given)}, the model was trained on {_text(accepted[0])}",
        where=place,
        remedy=REMEDY,
    )


def _text(streams):
    return ", ".join(f"{name} ({width})" for name, width in streams.items())


def _skipped(stated: FolderSpec, place, spec) -> int | None:
    """n, where the training used every n-th of the stated steps (`tal train --skip`); None: no stride is
    stated.

    Refuses another time axis than the model's.
    """
    if stated.resize is not None:
        raise TalError(
            f"features resized to {stated.resize} steps: their times follow from each recording's duration, "
            "which feature files do not tell",
            where=place,
            remedy="Use the features as extracted, or `tal train` and `tal eval` with annotations.",
        )
    if stated.stride_s is not None:
        stride_s, window_s = stated.stride_s, stated.window_s
    elif stated.fps is not None:
        stride_s = stated.stride_frames / stated.fps  # pyright: ignore[reportOptionalOperand]
        window_s = stated.window_frames and stated.window_frames / stated.fps
    else:
        return None
    step_s = stride_s * stated.every  # as the training reads spec.json
    skipped = max(1, round(spec.stride_s / step_s))
    window = "window" if window_s else "window (the stride, as no other is given)"
    for name, given, times, wanted in (
        ("stride", step_s, skipped, spec.stride_s),
        (window, window_s or stride_s, 1, spec.window_s),
    ):
        if abs(times * given - wanted) > SAME_TIMES * wanted:
            raise TalError(
                f"a {name} of {given:g} s, the model was trained with {wanted:g} s",
                where=place,
                remedy=REMEDY,
            )
    return skipped


def columns_text(spec: FeatureSpec, stream: str | None) -> str:
    """The columns that a model takes, by stream."""
    return _text(spec.streams if stream is None else {stream: spec.streams[stream]})
