"""Annotation files: ActionFormer / ActivityNet JSON, and the table of the TSP release.

Every entry is checked against a declared type (`Entry`, `Instance`). Other fields of an entry, such as a URL,
are ignored.
"""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
from pydantic import BeforeValidator

from tal_lib.data.remarks import ALL, Remark, beyond_remarks, far_beyond, label_remarks, looks_like
from tal_lib.data.tables import ANNOTATION_COLUMNS, check_annotations
from tal_lib.errors import TalError
from tal_lib.files import write_json
from tal_lib.reading import parse_json, read_text
from tal_lib.validation import Positive, Rate, unknown_name, validate

SPLITS = {
    "training": "train",
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
    "testing": "test",
}
TSP_COLUMNS = ["video-name", "t-start", "t-end", "action-label", "video-duration", "temporal-region-label"]
MOST_BEYOND = 0.5  # above this fraction of segments far beyond their recording, times are not seconds
SHAPE = (
    "Expected {'database': {recording: {'subset', 'duration', "
    "'annotations': [{'segment': [s, e], 'label'}]}}}."
)


@dataclass(frozen=True)
class AnnotationFile:
    """The contents of an annotation file."""

    recordings: pd.DataFrame  # recording, split, duration, fps (NaN if not stated)
    segments: pd.DataFrame  # recording, start, end, label
    repairs: tuple[Remark, ...] = ()  # what was repaired, and what looks wrong
    label_ids: dict[int, str] = field(default_factory=dict)  # `label_id` → label; empty if the file has none


def _as_label(value):
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError("a label (text)")


def _as_time(value):
    """Seconds. JSON writers use null for NaN."""
    if isinstance(value, bool):
        raise ValueError("a number of seconds")
    return float("nan") if value is None else value


Label = Annotated[str, BeforeValidator(_as_label)]
Time = Annotated[float, BeforeValidator(_as_time)]


@dataclass(frozen=True)
class Instance:
    """One annotated action."""

    others_ignored: ClassVar[bool] = True
    segment: tuple[Time, Time]  # start, end in seconds
    label: Label
    label_id: object = None


@dataclass(frozen=True)
class Entry:
    """One recording of an annotation file."""

    others_ignored: ClassVar[bool] = True
    subset: str
    duration: Positive  # seconds
    fps: Rate | None = None
    annotations: list[Instance] | None = None


def read_annotations(path: str | Path, *, repair: bool = False, split: str | None = None) -> AnnotationFile:
    """Read a JSON or CSV annotation file (also `.gz`).

    Args:
        repair: accept a file as published, and list each repair in `repairs`. Segments that end after their
            recording are kept, because the official script scores them. Empty segments and segments without
            finite times are dropped. Without `repair` each of these is an error.
        split: the split of a table that does not state it.

    Raises:
        TalError: the file is unreadable, an entry does not fit, or times are not seconds (more than
            `MOST_BEYOND` of the segments lie far beyond their recording).
    """
    path = Path(path)
    text = read_text(path, what="annotation file", remedy="Give the path of the data set's annotations.")
    if text.lstrip()[:1] in ("{", "["):
        recordings, segments, ids = _from_json(text, path)
    else:
        recordings, segments = _from_tsp(text, path, split)
        ids = []
    check_recordings(recordings, path)
    label_ids, repairs = _label_ids(ids)
    if repair:
        segments, repair_remarks = _repair(recordings, segments)
        repairs += repair_remarks
    durations = recordings.set_index("recording").duration
    check_unit(recordings, segments, path)
    if repair:
        rates = recordings.set_index("recording").fps
        repairs += [*beyond_remarks(segments, durations, rates), *label_remarks(segments)]
    return AnnotationFile(
        recordings,
        check_annotations(segments, durations=None if repair else durations, where=path),
        tuple(repairs),
        label_ids,
    )


def check_recordings(recordings, path):
    """Raise `TalError` unless recording ids are printable, not empty, and unique."""
    for name in recordings.recording:
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise TalError(
                f"recording id {name!r} is empty or holds characters that cannot be printed",
                where=path,
                remedy="Give every recording an id in one line of text.",
            )
    duplicates = recordings.recording[recordings.recording.duplicated()]
    if len(duplicates):
        raise TalError(
            f"recording {duplicates.iloc[0]} is listed twice",
            where=path,
            remedy="Keep one entry per recording.",
        )


def check_unit(recordings, segments, path):
    """Refuse a file whose times are not seconds."""
    durations = recordings.set_index("recording").duration
    known = segments[np.isfinite(segments.start) & np.isfinite(segments.end)]
    far = far_beyond(known, durations)
    if len(known) and far.mean() > MOST_BEYOND:
        raise TalError(
            f"{int(far.sum()):,} of {len(known):,} segments lie far beyond their recording: "
            + looks_like(known, durations, recordings.set_index("recording").fps),
            where=path,
            remedy="Give start, end and duration in seconds (frame number / frames a second).",
        )


def _from_json(text, path):
    content = parse_json(text, where=path)
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise TalError("unexpected JSON structure: no 'database' in it", where=path, remedy=SHAPE)
    recordings, segments, ids = [], [], []
    for recording, raw in database.items():
        where = f"{path}, recording {recording}"
        if not isinstance(raw, dict):
            raise TalError(
                f"unexpected JSON structure ({type(raw).__name__}, not an object)", where=where, remedy=SHAPE
            )
        fps = raw.get("fps") or None  # some files write 0 for unknown
        entry = validate(Entry, raw | {"fps": fps}, where=where, remedy=SHAPE)
        split = SPLITS.get(entry.subset.strip().lower())
        if split is None:
            raise unknown_name(entry.subset, SPLITS, where=where, name="subset")
        recordings.append((recording, split, entry.duration, entry.fps or _rate(raw, entry.duration)))
        for instance in entry.annotations or ():
            segments.append((recording, *instance.segment, instance.label))
            ids.append((instance.label_id, instance.label))
    return (
        pd.DataFrame(recordings, columns=["recording", "split", "duration", "fps"]).astype(
            {"duration": float, "fps": float}
        ),
        pd.DataFrame(segments, columns=ANNOTATION_COLUMNS).astype({"start": float, "end": float}),
        ids,
    )


def _rate(raw, duration):
    """Frames a second from the number of frames, which OpenTAD's files have; NaN if there is none."""
    try:
        return validate(Rate, validate(Positive, raw.get("frame")) / duration)
    except TalError:
        return np.nan


def _label_ids(pairs: Iterable[tuple[Any, str]]) -> tuple[dict[int, str], list[Remark]]:
    """`label_id` → label. Empty, with a remark, if the ids cannot be used."""
    known: dict[int, str] = {}
    for number, label in pairs:
        if number is None:
            continue
        if isinstance(number, bool) or not str(number).isdecimal():
            return {}, [Remark(ALL, "labels", f"label_id {number!r} is not a whole number: ids are not used")]
        if known.setdefault(int(number), label) != label:
            other = known[int(number)]
            return {}, [
                Remark(ALL, "labels", f"label_id {number} is both {other!r} and {label!r}: ids are not used")
            ]
    return known, []


def _from_tsp(text, path, split) -> tuple[pd.DataFrame, pd.DataFrame]:
    try:
        table = pd.read_csv(io.StringIO(text), dtype={"video-name": str, "action-label": str})
    except ValueError as error:
        raise TalError(f"not a readable table ({error})", where=path, remedy="Copy the file again.") from None
    missing = [name for name in TSP_COLUMNS if name not in table.columns]
    if missing:
        raise TalError(
            f"columns missing: {', '.join(missing)}",
            where=path,
            remedy="Expected the TSP release's ground-truth table, or the field's JSON.",
        )
    for name in ("t-start", "t-end", "video-duration", *(["fps"] if "fps" in table else [])):
        table[name] = pd.to_numeric(table[name], errors="coerce")
    recordings = table.drop_duplicates("video-name")
    bad: Any
    bad = recordings[~(recordings["video-duration"] > 0) | ~np.isfinite(recordings["video-duration"])]
    if len(bad):
        raise TalError(
            f"recording {bad['video-name'].iloc[0]} has duration {bad['video-duration'].iloc[0]}",
            where=path,
            remedy="Give the duration in seconds.",
        )
    rates = recordings["fps"].where(recordings["fps"] > 0) if "fps" in recordings else np.nan
    recordings = pd.DataFrame(
        {
            "recording": recordings["video-name"],
            "split": split or "train",
            "duration": recordings["video-duration"].astype(float),
            "fps": rates,
        }
    ).reset_index(drop=True)
    actions: Any
    actions = table[table["temporal-region-label"] == "Action"]
    unnamed = actions["action-label"].isna()
    if unnamed.any():
        raise TalError(
            f"recording {actions['video-name'][unnamed].iloc[0]}: an action without label",
            where=path,
            remedy="Give every action its label.",
        )
    segments = actions[["video-name", "t-start", "t-end", "action-label"]].set_axis(
        ANNOTATION_COLUMNS, axis=1
    )
    return recordings, segments.astype({"start": float, "end": float}).reset_index(drop=True)


def _repair(recordings, segments) -> tuple[pd.DataFrame, list[Remark]]:
    limit = segments.recording.map(recordings.set_index("recording").duration)
    unknown = ~(np.isfinite(segments.start) & np.isfinite(segments.end))
    empty = ~unknown & (segments.start >= segments.end)
    beyond = ~unknown & ~empty & (segments.end > limit + 1e-6)
    remarks = [
        Remark(name, kind, text.format(start, end))
        for chosen, kind, text in (
            (beyond, "as published", "segment {:g}–{:g} s goes beyond the recording, kept as published"),
            (empty, "repaired", "empty segment {:g}–{:g} s dropped"),
            (unknown, "repaired", "segment {:g}–{:g} s, which is not finite, dropped"),
        )
        for name, start, end in segments.loc[chosen, ["recording", "start", "end"]].itertuples(index=False)
    ]
    return segments[~empty & ~unknown].reset_index(drop=True), remarks


def write_annotations(
    path: str | Path,
    recordings: pd.DataFrame,
    segments: pd.DataFrame,
    label_ids: Mapping[int, str] | None = None,
) -> Path:
    """Write recordings (`recording, split, duration`, and `fps` if known) and segments as JSON in the
    ActivityNet form.

    `read_annotations` reads the file back. With `label_ids` (`label_id` → label) the ids are kept.
    """
    groups = dict(tuple(segments.groupby("recording", sort=False)))
    numbers = {label: number for number, label in (label_ids or {}).items()}
    database = {}
    row: Any
    for row in recordings.itertuples(index=False):
        rows = groups.get(row.recording, segments.iloc[:0])
        fps = getattr(row, "fps", np.nan)
        database[row.recording] = {
            "subset": {"train": "training"}.get(row.split, row.split),
            "duration": float(row.duration),
            **({"fps": float(fps)} if np.isfinite(fps) else {}),
            "annotations": [
                {"segment": [float(start), float(end)], "label": label}
                | ({"label_id": numbers[label]} if label in numbers else {})
                for start, end, label in rows[  # pyright: ignore[reportOptionalSubscript]
                    ["start", "end", "label"]
                ].itertuples(index=False)
            ],
        }
    return write_json(path, {"version": "tal_lib 1", "database": database})
