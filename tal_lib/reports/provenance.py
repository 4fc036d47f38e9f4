"""Provenance of the rows: cells made by an older version of the code, and by uncommitted code."""

from dataclasses import dataclass

import pandas as pd

from tal_lib import sweeps
from tal_lib.reports.equal.arms import MAIN, PLAIN, TUNING, runs_of
from tal_lib.reports.layout import Layout
from tal_lib.reports.output import Output
from tal_lib.reports.tables.files import read_csv

# tables whose captions tell of older cells
MEASURED = (
    "inference_cost",
    "end_to_end",
    "end_to_end_live",
    "training_step",
    "quantization",
    "export",
    "inference_length",
    "open_set",
)
STALE = ["sweep", "cell", "notebook", "area", "made_by", "now"]


@dataclass(frozen=True)
class Origin:
    """Counts of the cells in the tables by their provenance."""

    cells: int
    uncommitted: int  # made by code with uncommitted changes
    stale: int  # made by another version of the code
    stale_equal: int | None = None  # of them in the arms of the equal comparison; None: there is none

    def sentence(self) -> str:
        """The counts as a sentence, for pages and the command line."""
        some = f"{self.uncommitted:,} of {self.cells:,} runs (cells)"
        text = f"{some} were computed by code with uncommitted changes"
        which = (
            ""
            if self.stale_equal is None
            else f", {self.stale_equal or 'none'} of them in the equal comparison"
        )
        older = f" {self.stale:,} were computed by older code or from older data{which}"
        return f"{text}.{f'{older} (results/tables/stale.csv).' * bool(self.stale)}"


def stale_cells(layout: Layout) -> pd.DataFrame:
    """Cells whose code has changed since: `sweep, cell, notebook, area, made_by, now`. Empty if versions are
    not recorded."""
    find = getattr(sweeps, "stale_records", None)
    return find(layout.results) if find else pd.DataFrame(columns=STALE)


def write(data: dict[str, pd.DataFrame], stale: pd.DataFrame, out: Output) -> Origin:
    """Write `tables/stale.csv`. Returns the counts. stale: from `stale_cells`."""
    out.data(stale, "stale")
    return origin(data.values(), stale.cell.nunique(), stale_in_equal(data, stale))


def mark_older(data: dict[str, pd.DataFrame], stale: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables of `MEASURED` with a column `older`: whether code or data of a row's cell has changed since.

    data: tidy tables, of which empty ones stay as they are; stale: from `stale_cells`.
    """
    cells = set(stale.cell) if len(stale) else set()
    return data | {
        name: data[name].assign(older=_cell_of(data[name]).isin(cells))
        for name in MEASURED
        if name in data and len(data[name])
    }


def of_older_code(rows: pd.DataFrame, mark: str = "") -> str:
    """A sentence for a caption: how many of the cells are older. Empty if none, or if they are not marked.

    mark: what tells their rows from others.
    """
    if "older" not in rows or not rows.older.any():
        return ""
    older, cells = rows[rows.older].cell.nunique(), rows.cell.nunique()
    return f" {older} of {cells} cells were computed by older code or from older data{mark}."


def _cell_of(table):
    """The id of the cell of each row, without the benchmark of a further test (`<id>:hapt_recomposed`)."""
    return table.cell.astype(str).str.split(":").str[0]


def read(layout: Layout) -> Origin:
    """The counts, read from the written tables."""
    wanted = lambda name: name in ("cell", "git_commit")
    tables = (pd.read_csv(path, usecols=wanted) for path in sorted(layout.tables.glob("*.csv")))
    stale = read_csv(layout.table("stale"))
    named = {name: read_csv(layout.table(name)) for name in ("data_efficiency", "tuning_trials")}
    count = stale.cell.nunique() if len(stale) else 0
    return origin(tables, count, stale_in_equal(named, stale))


def stale_in_equal(data: dict[str, pd.DataFrame], stale: pd.DataFrame) -> int | None:
    """How many cells of older code are in the arms of the equal comparison: tuned, plain, trials of tuning.

    Cells that an arm shares with another sweep count too. None if the equal arm has no cells.
    """
    equal = runs_of(data, MAIN).cell
    if not len(equal):
        return None
    if not len(stale):
        return 0
    cells = {cell.partition(":")[0] for cell in [*equal, *runs_of(data, PLAIN).cell]}
    return stale[stale.cell.isin(cells) | (stale.sweep == TUNING)].cell.nunique()


def origin(tables, stale: int, stale_equal: int | None = None) -> Origin:
    """Counts over tidy tables with `cell` and `git_commit`; the other two counts are passed on."""
    columns = [table[["cell", "git_commit"]] for table in tables if {"cell", "git_commit"} <= set(table)]
    cells = pd.concat(columns) if columns else pd.DataFrame({"cell": [], "git_commit": []})
    cells = cells[~_cell_of(cells).duplicated()]  # a cell may be tested on several benchmarks
    return Origin(len(cells), int(cells.git_commit.astype(str).str.endswith("+").sum()), stale, stale_equal)
