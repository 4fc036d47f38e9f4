"""What all importers share: the options, one recording as a tool exported it, and their tables.

Times are seconds. Formats that count frames need a frame rate that the user states or that the video has: no
rate is guessed. The same holds for durations, which most tools do not export.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import numpy as np
import pandas as pd

from tal_lib.data.annotations import AnnotationFile, check_recordings, check_unit
from tal_lib.data.remarks import Remark, label_remarks
from tal_lib.data.tables import ANNOTATION_COLUMNS
from tal_lib.errors import TalError, short
from tal_lib.validation import Positive, Rate, unknown_name, validate

MEDIA = set(
    ".mp4 .mkv .webm .avi .mov .m4v .mpg .mpeg .ts .mts .m2ts .wmv .flv .3gp .ogv .ogg .wav .mp3 .m4a "
    ".flac .aac".split()
)
LATEST = 1e7  # seconds: a time above it is no time of a recording
TOLERANCE = 1.0  # seconds: tools let a segment end a little after the video
SPLITS = ("train", "validation", "test")
DURATIONS = "Give it with --durations FILE.csv (recording,duration in seconds), or the videos with --videos."
RATES = "Give it with --fps, or the videos with --videos."


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user states about exported files.

    Durations (s) and frame rates of videos are by recording id; `fps` holds for every recording.
    """

    fps: float | None = None
    durations: Mapping[str, float] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    tiers: tuple[
        str, ...
    ] = ()  # ELAN, VIA: names of tiers (layers), with * and ?; none: all independent ones
    label: str = "value"  # ELAN: a segment's label is its `value`, or the name of its `tier`
    attribute: str | None = None  # VIA, CVAT: the attribute that holds the label
    split: str = "train"
    test: tuple[str, ...] = ()  # ids of the test recordings

    def rate(self, recording: str, where: object) -> float:
        """Frames a second of one recording.

        Raises:
            TalError: nobody stated it.
        """
        rate = self.fps or self.rates.get(recording)
        if rate is None:
            raise TalError(
                f"recording {recording}: its times are frame numbers, and the frame rate is not known",
                where=where,
                remedy=RATES,
            )
        return validate(Rate, rate, where=where, name="fps")


@dataclass(frozen=True, kw_only=True)
class Annotated:
    """One recording as a tool exported it."""

    recording: str
    segments: list[tuple[float, float, str]]  # start, end (s), label
    duration: float | None = None  # seconds, if the file states it
    fps: float | None = None
    remarks: tuple[Remark, ...] = ()


def media_id(media: str, *, folders: bool = False) -> str:
    """A recording's id from the path or URL of its video: the file's name without the suffix of a video.

    With `folders` a relative path keeps its folders.
    """
    text = media.strip()
    if local := re.match(r"[^?#]*\?d=(.+)", text):  # how Label Studio names files of its machine
        text = "/" + unquote(local[1])
    elif re.match(r"[A-Za-z][\w+.-]+:/", text):
        text = unquote(re.split(r"[?#]", text)[0])
    relative = not re.match(r"[./\\]|[A-Za-z][\w+.-]*:", text)
    name = text if folders and relative else re.split(r"[/\\]", text)[-1]
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in MEDIA else name


def as_time(value: object, *, where: object, name: str, scale: float = 1.0) -> float:
    """A time in seconds: `value * scale`. `TalError` unless it is a number within a recording."""
    seconds = validate(float, value, where=where, name=name, remedy="Correct it in the tool.") * scale
    if not 0 <= seconds <= LATEST:  # also NaN
        raise TalError(
            f"{name}: {short(value)} is "
            + ("before the start of the recording" if seconds < 0 else "not a time within a recording"),
            where=where,
            remedy="Correct it in the tool: times start at 0.",
        )
    return seconds


def as_label(value: object, *, where: object, name: str) -> str:
    """A label in one line, without blanks at its ends."""
    label = value.strip() if isinstance(value, str) else ""
    if not label or not label.isprintable():
        raise TalError(
            f"{name} has no label" if not label else f"{name}: the label {short(value)} is not one line",
            where=where,
            remedy="Give it a label in one line of text.",
        )
    return label


def as_frame(value: object, *, where: object, name: str, least: int = 0) -> int:
    """A frame number."""
    frame = validate(int, value, where=where, name=name, remedy="Frames are whole numbers.")
    if not least <= frame <= LATEST * 1000:
        raise TalError(
            f"{name}: {short(value)} is not a frame number", where=where, remedy=f"Frames start at {least}."
        )
    return frame


def checked(segment: tuple[float, float, str], *, where: object, name: str) -> tuple[float, float, str]:
    """The segment. `TalError` if it ends before it starts."""
    start, end, _ = segment
    if not end > start:
        raise TalError(
            f"{name}: {start:g}–{end:g} s ends before it starts",
            where=where,
            remedy="Correct or remove it in the tool.",
        )
    return segment


def as_tables(exported: Iterable[tuple[Path, Annotated]], options: Options) -> AnnotationFile:
    """The annotations of all recordings. Each comes with the file that it was read from.

    Raises:
        TalError: a recording from two files, an unknown duration, segments far beyond the recording, or a
            recording in `options.test` that there is not.
    """
    rows, segments, remarks, origin = [], [], [], {}
    for path, item in exported:
        if item.recording in origin:
            other = origin[item.recording]
            raise TalError(
                f"recording {item.recording} is annotated "
                + ("twice" if other == path else f"here and in {other}"),
                where=path,
                remedy="Keep one annotation of each recording; its id is the name of its video.",
            )
        origin[item.recording] = path
        duration = options.durations.get(item.recording, item.duration)
        if duration is None:
            raise TalError(
                f"recording {item.recording}: its duration is not known", where=path, remedy=DURATIONS
            )
        duration = validate(Positive, duration, where=path, name=f"duration of {item.recording}")
        remarks += [*item.remarks, *_beyond(item, duration, path)]
        rate = options.fps or options.rates.get(item.recording) or item.fps or np.nan
        split = "test" if item.recording in options.test else options.split
        rows.append((item.recording, split, duration, rate))
        segments += [(item.recording, *segment) for segment in item.segments]
    for name in options.test:
        if name not in origin:
            raise unknown_name(name, sorted(origin), name="recording", where="--test")
    recordings = pd.DataFrame(rows, columns=["recording", "split", "duration", "fps"])
    table = pd.DataFrame(segments, columns=ANNOTATION_COLUMNS).astype({"start": float, "end": float})
    where = ", ".join(sorted({str(path) for path in origin.values()})[:3])
    check_recordings(recordings, where)
    check_unit(recordings, table, where)
    return AnnotationFile(recordings, table, (*remarks, *label_remarks(table)))


def updated(base: AnnotationFile, new: AnnotationFile) -> AnnotationFile:
    """`base` with the annotations of the recordings in `new`. Their splits are those of `base`.

    Recordings that only one of them has are kept as they are.
    """
    splits = base.recordings.set_index("recording").split
    fresh = new.recordings.assign(split=new.recordings.recording.map(splits).fillna(new.recordings.split))
    fresh = fresh.set_index("recording", drop=False)
    others = ~base.segments.recording.isin(fresh.index)
    kept = base.recordings[~base.recordings.recording.isin(fresh.index)]
    order = [*base.recordings.recording, *(name for name in fresh.index if name not in splits.index)]
    recordings = pd.concat([kept, fresh]).set_index("recording", drop=False).loc[order]
    segments = pd.concat([base.segments[others], new.segments], ignore_index=True)
    return AnnotationFile(
        recordings.reset_index(drop=True),
        segments,  # pyright: ignore[reportArgumentType]
        (*base.repairs, *new.repairs),
        base.label_ids,
    )


def _beyond(item, duration, path):
    """A remark on segments that end a little after their recording. Others are refused."""
    late = [segment for segment in item.segments if segment[1] > duration + 1e-6]
    for start, end, label in late:
        if start >= duration or end > duration + TOLERANCE:
            raise TalError(
                f"recording {item.recording}: {label!r} at {start:g}–{end:g} s is beyond its duration of "
                f"{duration:g} s",
                where=path,
                remedy="Check the duration, the frame rate, and that it is the right video.",
            )
    if late:
        text = f"{len(late)} segments end up to {TOLERANCE:g} s after the recording; kept as they are"
        yield Remark(item.recording, "as published", text)


LAYERS = ("annotations", "detections")  # what `tal data export` writes side by side


def refuse_two_layers(path: object) -> None:
    """Raise the `TalError` for an exported file with annotations and detections, of which none was chosen."""
    raise TalError(
        f"it holds two layers of an export, {' and '.join(LAYERS)}",
        where=path,
        remedy=f"Take one: --tier '{LAYERS[0]}*' or --tier '{LAYERS[1]}*'.",
    )


def left_out(recording: str, count: int, what: str) -> tuple[Remark, ...]:
    """A remark on annotations that are no segments of actions. None if there are none."""
    return (Remark(recording, "left out", f"{count:,} {what}"),) if count else ()
