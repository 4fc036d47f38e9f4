"""Detection files: plain tables, and the field's JSON form.

{'results': {recording: [{'label', 'score', 'segment': [start, end]}]}}
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from tal_lib.data.annotations import Label
from tal_lib.data.tables import DETECTION_COLUMNS, check_detections
from tal_lib.errors import TalError
from tal_lib.files import write_json
from tal_lib.reading import means, read_json, read_text
from tal_lib.spreadsheet import csv_plain
from tal_lib.validation import unknown_name, validate

WHAT = "detections file"
SHAPE = "Expected {'results': {recording: [{'label', 'score', 'segment': [start, end]}]}}."
TABLE = f"Expected a table with the columns {', '.join(DETECTION_COLUMNS)}."

Number = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class _Detection:
    segment: tuple[Number, Number]  # start, end in seconds
    label: Label
    score: Number


_FIELDS = tuple(field.name for field in fields(_Detection))


def read_detections(path: str | Path, only: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The detections table of a JSON, CSV or Parquet file; ids and labels as in the file.

    `match_detections` maps them to the annotations' ids. A table has the columns of `DETECTION_COLUMNS`, and
    may have others. Parquet needs pyarrow. A sweep's file (`results/detections/`) holds many runs.

    Args:
        only: column → value, as text: the run to read from a sweep's file.

    Raises:
        TalError: a missing, damaged or too large file, another shape, or an entry that is not a detection; a
            sweep's file of which `only` does not name one run.
    """
    path = Path(path)
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if kind.lower() == ".csv":
        table = _from_text(path)
    elif kind.lower() == ".parquet":
        table = _from_parquet(path, only or {})
    else:
        table = _from_json(path)
    if only and kind.lower() != ".parquet":
        raise TalError("holds one run", where=path, remedy="Leave --only out.")
    return check_detections(table, where=path)


def _from_json(path):
    content = read_json(path, what=WHAT, remedy="Give the path of a results JSON, CSV or Parquet file.")
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise TalError("unexpected JSON structure: no 'results' in it", where=path, remedy=SHAPE)
    rows = []
    for recording, items in results.items():
        where = f"{path}, recording {recording}"
        if not isinstance(items, list):
            raise TalError(
                f"{type(items).__name__} instead of a list of detections", where=where, remedy=SHAPE
            )
        rows.extend((recording, *_row(item, number, where)) for number, item in enumerate(items, 1))
    return pd.DataFrame(rows, columns=DETECTION_COLUMNS)


def _row(item, number, where):
    """Start, end, label, score. Items of the usual types skip validation, because files hold millions of
    them."""
    try:
        (start, end), label, score = item["segment"], item["label"], item["score"]
        if type(start) is type(end) is type(score) is float and type(label) is str and label:
            return start, end, label, score
    except (KeyError, TypeError, ValueError):
        pass
    if isinstance(item, dict):
        item = {name: item[name] for name in _FIELDS if name in item}
    entry = validate(_Detection, item, where=where, name=f"detection {number}", remedy=SHAPE)
    return *entry.segment, entry.label, entry.score


def _from_text(path):
    text = read_text(path, what=WHAT)
    try:
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except (ValueError, OverflowError) as error:
        raise TalError(f"not a readable table ({error})", where=path, remedy=TABLE) from None
    for name in table.columns.intersection(["recording", "label"]):
        table[name] = table[name].map(csv_plain, na_action="ignore")
    return _with_numbers(table, path)


def _from_parquet(path, only):
    if not path.is_file():
        raise TalError(f"{WHAT} not found", where=path, remedy="Check the path.")
    try:
        import pyarrow  # noqa: F401 (pandas reads Parquet with it)
    except ImportError:
        raise TalError(
            "reading Parquet needs pyarrow, which is not installed",
            where=path,
            remedy="Run `pip install pyarrow`, or write the table as CSV.",
        ) from None
    try:
        table = pd.read_parquet(path, engine="pyarrow")
    except Exception as error:  # errors of pyarrow on damaged files
        raise TalError(
            f"not a readable Parquet table ({(str(error) or type(error).__name__).splitlines()[0]})",
            where=path,
            remedy=TABLE,
        ) from None
    return _with_numbers(_one_run(table, only, path), path)


def _one_run(table, only, path):
    """The rows of one run of a sweep's file, with times in seconds. Other tables stay as they are."""
    for name, value in only.items():
        if name not in table.columns:
            raise unknown_name(name, [column for column in table.columns if column != "score"], where=path)
        known = table[name].unique().tolist()
        wanted = [each for each in known if means(value, each)]
        if not wanted:
            raise unknown_name(value, sorted(map(str, known)), where=path, name=name)
        table = table[table[name].isin(wanted)]
    if not {"cell", "recording", "start_cs", "end_cs"} <= set(table.columns):
        return table
    if (runs := table.cell.nunique()) > 1:
        differ = [
            name
            for name in table.columns[: list(table.columns).index("recording")]
            if name != "cell" and table[name].nunique() > 1
        ]
        raise TalError(
            f"holds {runs} runs, which differ in {', '.join(differ) or 'their cell'}",
            where=path,
            remedy=f"Name one: --only {(differ or ['cell'])[0]}=VALUE …",
        )
    seconds = lambda column: np.asarray(pd.to_numeric(column, errors="coerce"), dtype=float) / 100
    return table.assign(start=seconds(table.start_cs), end=seconds(table.end_cs))


def _with_numbers(table, path):
    """A table's ids and labels as text, its other columns as numbers."""
    missing = [name for name in DETECTION_COLUMNS if name not in table.columns]
    if missing:
        raise TalError(f"columns missing: {', '.join(missing)}", where=path, remedy=TABLE)
    if table.columns.duplicated().any():
        raise TalError(
            f"column {table.columns[table.columns.duplicated()][0]} appears twice", where=path, remedy=TABLE
        )
    columns = {}
    for name in DETECTION_COLUMNS:
        if name in ("recording", "label"):
            columns[name] = table[name].astype(str)
            bad = table[name].isna() | (columns[name].str.strip() == "")
        else:
            columns[name] = pd.to_numeric(table[name], errors="coerce")
            bad = columns[name].isna()
        if bad.any():
            row = int(bad.to_numpy().argmax())
            raise TalError(
                f"row {row + 1}: {name} is {table[name].iloc[row]!r}",
                where=path,
                remedy="Give ids and labels, and start, end (seconds) and score as finite numbers.",
            )
    return pd.DataFrame(columns)


def write_detections(path: str | Path, detections: pd.DataFrame) -> Path:
    """Write a detections table in the field's JSON form."""
    detections = check_detections(detections)
    results: dict[str, list] = {}
    for recording, start, end, label, score in detections.itertuples(index=False):
        results.setdefault(recording, []).append({"label": label, "score": score, "segment": [start, end]})
    return write_json(path, {"version": "tal_lib 1", "results": results, "external_data": {}}, indent=None)
