"""Run a random sample of committed cells again, and check that their numbers are the same."""

import json
import random
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tal_lib.errors import TalError
from tal_lib.files import study_folder
from tal_lib.provenance import provenance
from tal_lib.sweeps.grid import Cell, chosen, data_hash, label
from tal_lib.sweeps.identity import changes_text, current_code, data_of, differences
from tal_lib.sweeps.ledger import RESULT, ledgers, read_all
from tal_lib.sweeps.local import warm_processes
from tal_lib.sweeps.notebook import read_notebook
from tal_lib.sweeps.trained import HERE as TRAINED_HERE

NOTEBOOKS = study_folder()
# columns that depend on the machine's speed, memory and load, not on the computation
MEASURED = re.compile(
    r"second|latency|_s(_|$)|per_s|peak|memory|bytes|utilisation|energy|(^|_)ms(_|$)|samples|factor|faster"
    r"|^(decoding|features|network|decode_and_NMS)_share$|^dropped$"  # of seconds; of the live demo
    r"|wall"
)
# columns that name the weights: another clone trains them again, or has them from another cell
WEIGHTS = re.compile(r"^(weights|weights_from|cell)$")
EQUAL, CLOSE, DIFFERS, NOT_RUN = "equal", "close", "differs", "not run"


@dataclass(frozen=True)
class Verdict:
    """Result of one cell that was run again."""

    cell: str
    notebook: str
    parameters: dict
    verdict: str  # EQUAL, CLOSE, DIFFERS or NOT_RUN
    difference: float  # the largest, relative to the larger value or 1; NaN if not run
    mean_difference: float  # the same for the columns' means, such as avg mAP
    remark: str

    @property
    def holds(self) -> bool:
        return self.verdict in (EQUAL, CLOSE)

    def __str__(self):
        apart = (
            ""
            if self.verdict in (EQUAL, NOT_RUN)
            else f" (means by up to {self.mean_difference:.2g}, single numbers by {self.difference:.2g})"
        )
        return (
            f"{self.verdict}{apart}  {self.cell}  {self.notebook.removesuffix('.ipynb')}  "
            f"{label(self.parameters)}" + (f"\n    {self.remark}" if self.remark else "")
        )


def verify(
    results: str | Path = "results",
    sample: int = 3,
    seed: int | None = None,
    tolerance: float = 0.02,
    longest: float = 300.0,
    only: dict[str, str] | None = None,
    notebooks: str | Path = NOTEBOOKS,
) -> Iterator[Verdict]:
    """Run cells of the ledgers again and compare every number that does not depend on the machine's speed.

    With the same seed, machine, versions and threads, the bits are equal. Elsewhere sums have another order,
    so the last digits differ, and training amplifies the difference. The AP of a rare class at one tIoU may
    then jump, but means do not. `close` means: the mean of every column of every table moved by at most
    `tolerance`. The difference is relative, or absolute for means below 1.

    Args:
        sample: number of cells, drawn at random.
        seed: of the random draw; the same seed draws the same cells.
        longest: draw only cells that take at most this many seconds. If a cell uses weights of another cell,
            their training counts. Cells with unknown training time are left out.
        only: draw only cells whose parameters have these values (compared as text).

    Raises:
        TalError: there is no ledger, or no ledger has such a cell.
    """
    records, unknown = candidates(results, longest, only)
    if not records:
        raise TalError(
            "no ledger has a cell with these values",
            where=Path(results) / "ledger",
            remedy="Check the folder, --only and --longest."
            + (f" The training time of the weights of {unknown} cells is unknown." if unknown else ""),
        )
    for record in random.Random(seed).sample(records, min(sample, len(records))):
        yield run_again(record, Path(notebooks), tolerance)


def candidates(
    results: str | Path, longest: float = np.inf, only: dict[str, str] | None = None
) -> tuple[list[dict], int]:
    """Comparable records that take at most `longest` seconds, and the number of records with unknown time."""
    seconds = seconds_of_all(results)
    records = [
        record
        for record in read_all(results)
        if _compared(record["tables"]) and chosen(record["parameters"], only)
    ]
    known = [record for record in records if not np.isnan(seconds[record["id"]])]
    return [record for record in known if seconds[record["id"]] <= longest], len(records) - len(known)


def seconds_of_all(results: str | Path) -> dict[str, float]:
    """Cell id -> seconds from scratch: those of the cell, and those of the cells whose weights it used.

    NaN if the ledgers lack a cell whose weights it used.
    """
    records = ledgers(results)
    seconds = {}
    for record in records:
        for id in filter(None, (record["id"], record.get("formerly"))):
            seconds[id] = record.get("seconds", 0.0)
    return {
        record["id"]: record.get("seconds", 0.0)
        + sum(seconds.get(id, np.nan) for id in _weights_used(record))
        for record in records
    }


def _weights_used(record):
    """Ids of the cells whose trained weights a record used."""
    rows = (row for rows in record["tables"].values() for row in rows)
    return {row["weights_from"] for row in rows if row.get("weights_from")} - {TRAINED_HERE}


def run_again(record: dict, notebooks: Path, tolerance: float) -> Verdict:
    """Run the cell of a record with the current code, and compare the numbers."""
    about = (record["id"], record["notebook"], record["parameters"])
    known = record["provenance"]
    try:
        notebook = notebooks / record["notebook"]
        defaults, _ = read_notebook(notebook)
        benchmark = record["parameters"].get("benchmark")
        data = data_of(record["parameters"], data_hash)
    except TalError as error:
        return Verdict(*about, NOT_RUN, np.nan, np.nan, str(error))
    if data != known["data_hash"]:
        return Verdict(
            *about,
            NOT_RUN,
            np.nan,
            np.nan,
            f"made with other data for {benchmark} (hash {known['data_hash']}, here {data})",
        )
    if set(record["parameters"]) - set(defaults):
        return Verdict(*about, NOT_RUN, np.nan, np.nan, "made by an older notebook with other parameters")
    code = current_code().of(notebook, record["parameters"])
    changes = differences(record.get("code"), code)
    remarks = [f"made by other code: {changes_text(changes)}"] if changes else []
    now = provenance()
    remarks += [
        f"{name} was {known[name]}"
        for name in ("torch_version", "device_name", "git_commit")
        if known[name] != now[name]
    ]
    cell = Cell("verify", notebook, record["parameters"], data, record["id"], code=code)
    with tempfile.TemporaryDirectory(prefix="tal-verify-") as folder:
        reason = warm_processes(known.get("threads") or 1).run(cell, notebook, 0, Path(folder))
        if reason is not None:
            return Verdict(*about, NOT_RUN, np.nan, np.nan, f"{reason}")
        again = json.loads((Path(folder) / record["id"] / RESULT).read_text())
    difference, of_means = largest_difference(record["tables"], again["tables"])
    verdict = EQUAL if difference == 0 else CLOSE if of_means <= tolerance else DIFFERS
    remarks += weights_changed(record["tables"], again["tables"])
    return Verdict(*about, verdict, difference, of_means, "; ".join(remarks))


def weights_changed(before: dict[str, list[dict]], after: dict[str, list[dict]]) -> list[str]:
    """A remark for each column that names the weights, if it names other weights now."""
    remarks = []
    for name in before.keys() & after.keys():
        for column in sorted({column for row in before[name] for column in row if WEIGHTS.match(column)}):
            was, now = ([str(row.get(column)) for row in rows] for rows in (before[name], after[name]))
            if was != now:
                remarks.append(
                    f"{column}: {', '.join(dict.fromkeys(was))}, now {', '.join(dict.fromkeys(now))}"
                )
    return sorted(set(remarks))


def _compared(tables) -> dict[str, Any]:
    """Table name -> frame, with only the tables and columns that are compared."""
    frames = {name: pd.DataFrame(rows) for name, rows in tables.items()}
    frames = {
        name: frame[[column for column in frame if not MEASURED.search(column) and not WEIGHTS.match(column)]]
        for name, frame in frames.items()
        if name != "machines"
    }
    return {name: frame for name, frame in frames.items() if frame.select_dtypes("number").size}


def largest_difference(before: dict[str, list[dict]], after: dict[str, list[dict]]) -> tuple[float, float]:
    """The largest |a − b| / max(1, |a|, |b|) of numbers, and the largest of column means.

    Both are infinite if rows, texts or the places of missing values differ. Columns that measure speed do not
    count. Neither do columns that name the weights (`weights_changed` reports those), nor tables and columns
    that a notebook records only since.
    """
    was, now = _compared(before), _compared(after)
    apart = lambda a, b: np.abs(a - b) / np.maximum(1.0, np.maximum(np.abs(a), np.abs(b)))
    if was.keys() - now.keys():
        return np.inf, np.inf
    worst = worst_mean = 0.0
    for name, frame in was.items():
        other = now[name]
        if len(frame) != len(other) or set(frame) - set(other):
            return np.inf, np.inf
        for column in frame:
            a, b = frame[column], other[column]
            if not (pd.api.types.is_numeric_dtype(a) and pd.api.types.is_numeric_dtype(b)):
                if a.map(str).tolist() != b.map(str).tolist():
                    return np.inf, np.inf
                continue
            a, b = a.to_numpy(float), b.to_numpy(float)
            if (np.isnan(a) != np.isnan(b)).any():
                return np.inf, np.inf
            if len(a) and not np.isnan(a).all():
                worst = max(worst, float(np.nanmax(apart(a, b))))
                worst_mean = max(worst_mean, float(apart(np.nanmean(a), np.nanmean(b))))
    return worst, worst_mean
