"""Annotation files in the field's forms: ActionFormer / ActivityNet JSON and the TSP release's table."""

import gzip
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tal_lib.data.tables import ANNOTATION_COLUMNS, check_annotations
from tal_lib.errors import TalError
from tal_lib.files import write_json

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


@dataclass(frozen=True)
class AnnotationFile:
    """What a file says."""

    recordings: pd.DataFrame  # recording, split, duration, fps (NaN where not stated)
    segments: pd.DataFrame  # recording, start, end, label
    repairs: tuple[str, ...] = ()  # what was mended, a line each


def read_annotations(path: str | Path, *, repair: bool = False, split: str | None = None) -> AnnotationFile:
    """Read a JSON or CSV annotation file (`.gz` too).

    Args:
        repair: for the published THUMOS14 and ActivityNet files: keep segments that go beyond the recording (the
            official script scores them), drop empty ones, and say so in `repairs`; otherwise either is an error.
        split: for tables that do not state it.
    """
    path = Path(path)
    if not path.is_file():
        raise TalError(
            "annotation file not found", where=path, remedy="Give the path of the data set's annotations."
        )
    try:
        text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode(
            "utf-8"
        )
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TalError(
            f"cannot be read ({error})", where=path, remedy="Copy or download the file again."
        ) from None
    if text.lstrip()[:1] in ("{", "["):
        recordings, segments = _from_json(text, path)
    else:
        recordings, segments = _from_tsp(text, path, split)
    twice = recordings.recording[recordings.recording.duplicated()]
    if len(twice):
        raise TalError(
            f"recording {twice.iloc[0]} is listed twice", where=path, remedy="Keep one entry a recording."
        )
    repairs = []
    if repair:
        segments, repairs = _repair(recordings, segments)
    durations = None if repair else recordings.set_index("recording").duration
    return AnnotationFile(
        recordings, check_annotations(segments, durations=durations, where=path), tuple(repairs)
    )


def _from_json(text, path):
    shape = "Expected {'database': {recording: {'subset', 'duration', 'annotations': [{'segment': [s, e], 'label'}]}}}."
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except (json.JSONDecodeError, RecursionError) as error:
        raise TalError(
            f"not valid JSON ({error})", where=path, remedy="The file may be truncated; copy it again."
        ) from None
    except _Twice as error:
        raise TalError(
            f"{error.args[0]!r} is listed twice", where=path, remedy="Keep one entry a recording."
        ) from None
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise TalError("JSON of another shape: no 'database' in it", where=path, remedy=shape)
    recordings, segments = [], []
    for recording, entry in database.items():
        where = f"{path}, recording {recording}"
        try:
            subset = str(entry["subset"]).lower()
            duration = float(entry["duration"])
            fps = float(entry.get("fps") or "nan")
            for item in entry.get("annotations") or []:
                start, end = (float(value) for value in item["segment"])
                segments.append((recording, start, end, str(item["label"])))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TalError(
                f"JSON of another shape ({type(error).__name__}: {error})", where=where, remedy=shape
            ) from None
        if subset not in SPLITS:
            raise TalError(
                f"unknown subset {entry['subset']!r}", where=where, remedy=f"Use one of {', '.join(SPLITS)}."
            )
        if not 0 < duration < float("inf"):
            raise TalError(f"duration {duration}", where=where, remedy="Give the duration in seconds.")
        recordings.append((recording, SPLITS[subset], duration, fps))
    return (
        pd.DataFrame(recordings, columns=["recording", "split", "duration", "fps"]),
        pd.DataFrame(segments, columns=ANNOTATION_COLUMNS).astype({"start": float, "end": float}),
    )


class _Twice(Exception):
    pass


def _unique(pairs):
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise _Twice(next(key for key in keys if keys.count(key) > 1))
    return dict(pairs)


def _from_tsp(text, path, split):
    import io

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
    table[["t-start", "t-end", "video-duration"]] = table[["t-start", "t-end", "video-duration"]].apply(
        pd.to_numeric, errors="coerce"
    )
    recordings = table.drop_duplicates("video-name")
    recordings = pd.DataFrame(
        {
            "recording": recordings["video-name"],
            "split": split or "train",
            "duration": recordings["video-duration"],
            "fps": recordings["fps"] if "fps" in recordings else float("nan"),
        }
    ).reset_index(drop=True)
    actions = table[table["temporal-region-label"] == "Action"]
    segments = actions[["video-name", "t-start", "t-end", "action-label"]].set_axis(
        ANNOTATION_COLUMNS, axis=1
    )
    return recordings, segments.reset_index(drop=True)


def _repair(recordings, segments):
    limit = segments.recording.map(recordings.set_index("recording").duration)
    empty = segments.start >= segments.end
    beyond = ~empty & (segments.end > limit + 1e-6)
    repairs = [
        f"{name}: segment {start:g}–{end:g} s goes beyond the recording, kept as published"
        for name, start, end in segments.loc[beyond, ["recording", "start", "end"]].itertuples(index=False)
    ]
    repairs += [
        f"{name}: empty segment {start:g}–{end:g} s dropped"
        for name, start, end in segments.loc[empty, ["recording", "start", "end"]].itertuples(index=False)
    ]
    return segments[~empty].reset_index(drop=True), repairs


def write_annotations(path: str | Path, recordings: pd.DataFrame, segments: pd.DataFrame) -> Path:
    """Write `recording, split, duration` and segments in the field's JSON form; `read_annotations` reads it back."""
    groups = dict(tuple(segments.groupby("recording", sort=False)))
    database = {}
    for row in recordings.itertuples(index=False):
        mine = groups.get(row.recording, segments.iloc[:0])
        database[row.recording] = {
            "subset": {"train": "training"}.get(row.split, row.split),
            "duration": float(row.duration),
            "annotations": [
                {"segment": [float(start), float(end)], "label": label}
                for start, end, label in mine[["start", "end", "label"]].itertuples(index=False)
            ],
        }
    return write_json(path, {"version": "tal_lib 1", "database": database})
