"""The two tables that all modules exchange: annotations and detections.

One row per segment: `recording, start, end, label` (seconds); detections also have `score`.
"""

import numpy as np
import pandas as pd

from tal_lib.errors import TalError

# names of files may hold bytes that are not UTF-8; text of pyarrow, where it is installed, cannot hold these
pd.set_option("mode.string_storage", "python")

ANNOTATION_COLUMNS = ["recording", "start", "end", "label"]
DETECTION_COLUMNS = [*ANNOTATION_COLUMNS, "score"]
PROPOSAL_COLUMNS = ["recording", "start", "end", "score"]


def empty_detections() -> pd.DataFrame:
    """A detections table without rows, with the right column types."""
    return pd.DataFrame(
        {
            "recording": pd.Series(dtype=object),
            "start": pd.Series(dtype=float),
            "end": pd.Series(dtype=float),
            "label": pd.Series(dtype=object),
            "score": pd.Series(dtype=float),
        }
    )


def _require_columns(table, columns, where):
    if not isinstance(table, pd.DataFrame):
        raise TalError(
            f"expected a table, got {type(table).__name__}",
            where=where,
            remedy=f"Pass a pandas DataFrame with columns {', '.join(columns)}.",
        )
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise TalError(
            f"columns missing: {', '.join(missing)} (found {', '.join(map(str, table.columns))})",
            where=where,
            remedy=f"Name the columns {', '.join(columns)}.",
        )


def _refuse(table, bad, where, problem, remedy):
    """Raise `TalError`, naming the recording, for the first row in which `bad` is true."""
    bad = np.asarray(bad, dtype=bool)
    if bad.any():
        row = table.iloc[int(np.argmax(bad))]
        more = f" (and {int(bad.sum()) - 1} more)" if bad.sum() > 1 else ""
        raise TalError(
            f"recording {row['recording']}: {problem.format(**row)}{more}", where=where, remedy=remedy
        )


def check_annotations(
    table: pd.DataFrame, *, durations=None, classes=None, where: object = "annotations"
) -> pd.DataFrame:
    """The table with exactly the annotation columns. `TalError` for its first bad row.

    Args:
        durations: recording id → seconds. Segments of other recordings, or beyond the end, are refused.
        classes: the allowed labels.
        where: what the error calls this table (a file's path).
    """
    _require_columns(table, ANNOTATION_COLUMNS, where)
    table = table[ANNOTATION_COLUMNS].reset_index(drop=True)  # pyright: ignore[reportAssignmentType]
    table = table.astype({"start": float, "end": float})
    _refuse(
        table,
        ~np.isfinite(table.start) | ~np.isfinite(table.end),
        where,
        "segment {start}–{end} s is not finite",
        "Give start and end in seconds.",
    )
    _refuse(
        table,
        table.start < 0,
        where,
        "segment {start}–{end} s starts before the recording",
        "Give start and end in seconds from the beginning of the recording.",
    )
    _refuse(
        table,
        table.start >= table.end,
        where,
        "segment {start}–{end} s ends before it starts",
        "Remove or correct that segment.",
    )
    if durations is not None:
        durations = pd.Series(durations)
        _refuse(
            table,
            ~table.recording.isin(durations.index),
            where,
            "is annotated but not listed",
            "List the recording with its duration, or remove its annotations.",
        )
        limit = table.recording.map(durations).astype(float)
        _refuse(
            table.assign(limit=limit),
            table.end > limit + 1e-6,
            where,
            "segment {start}–{end} s goes beyond the recording's {limit} s",
            "Correct the segment or the recording's duration.",
        )
    if classes is not None:
        _refuse(
            table,
            ~table.label.isin(list(classes)),
            where,
            "unknown class {label!r}",
            f"Use one of the {len(list(classes))} classes: {_shorten(classes)}.",
        )
    return table


def check_detections(table: pd.DataFrame, *, where: object = "detections") -> pd.DataFrame:
    """The table with exactly the detection columns. `TalError` for its first bad row."""
    return _check_scored(table, DETECTION_COLUMNS, "detection", where)  # pyright: ignore[reportReturnType]


def check_proposals(table: pd.DataFrame, *, where: object = "proposals") -> pd.DataFrame:
    """The table with exactly the proposal columns (no label). `TalError` for its first bad row."""
    return _check_scored(table, PROPOSAL_COLUMNS, "proposal", where)  # pyright: ignore[reportReturnType]


def _check_scored(table, columns, noun, where):
    _require_columns(table, columns, where)
    if len(table) == 0:
        return empty_detections()[columns]
    table = table[columns].reset_index(drop=True)
    table = table.astype({"start": float, "end": float, "score": float})
    _refuse(
        table,
        ~np.isfinite(table[["start", "end", "score"]]).all(axis=1),
        where,
        noun + " {start}–{end} s, score {score}, is not finite",
        f"Drop {noun}s with NaN or infinite values.",
    )
    _refuse(
        table,
        table.start > table.end,
        where,
        noun + " {start}–{end} s ends before it starts",
        "Write each segment as start, end in seconds.",
    )
    return table


def _shorten(names, limit=8):
    names = [str(name) for name in names]
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
