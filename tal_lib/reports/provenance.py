"""Provenance of the rows: cells made by an older version of the code, and by uncommitted code."""

from dataclasses import dataclass

import pandas as pd

from tal_lib import sweeps
from tal_lib.reports.equal.arms import MAIN, PLAIN, TUNING
from tal_lib.reports.layout import Layout
from tal_lib.reports.output import Output

STALE = ["sweep", "cell", "notebook", "area", "made_by", "now"]


@dataclass(frozen=True)
class Origin:
    """Counts of the cells in the tables by their provenance."""

    cells: int
    uncommitted: int  # made by code with uncommitted changes
    stale: int  # made by another version of the code
    stale_equal: int = 0  # of these, in the equal comparison

    def sentence(self) -> str:
        """The counts as a sentence, for pages and the command line."""
        text = f"{self.uncommitted:,} of {self.cells:,} cells were computed by code with uncommitted changes"
        here = f"{self.stale_equal or 'none'} of them in the equal comparison"
        older = f" {self.stale:,} were computed by older code (results/tables/stale.csv), {here}."
        return f"{text}.{older * bool(self.stale)}"


def stale_cells(layout: Layout) -> pd.DataFrame:
    """Cells whose code has changed since: `STALE`. Empty if versions are not
    recorded."""
    find = getattr(sweeps, "stale_records", None)
    return find(layout.results) if find else pd.DataFrame(columns=STALE)


def write(data: dict[str, pd.DataFrame], layout: Layout, out: Output) -> Origin:
    """Write `tables/stale.csv`. Returns the counts."""
    stale = stale_cells(layout)
    out.data(stale, "stale")
    return origin(data.values(), stale)


def read(layout: Layout) -> Origin:
    """The counts, read from the written tables."""
    wanted = lambda name: name in ("cell", "git_commit")
    tables = (pd.read_csv(path, usecols=wanted) for path in sorted(layout.tables.glob("*.csv")))
    path = layout.table("stale")
    return origin(tables, pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["sweep", "cell"]))


def origin(tables, stale: pd.DataFrame) -> Origin:
    """Counts over tidy tables with `cell` and `git_commit`. stale: cells of older code: sweep, cell."""
    columns = [table[["cell", "git_commit"]] for table in tables if {"cell", "git_commit"} <= set(table)]
    cells = (
        pd.concat(columns).drop_duplicates("cell")
        if columns
        else pd.DataFrame({"cell": [], "git_commit": []})
    )
    uncommitted = int(cells.git_commit.astype(str).str.endswith("+").sum())
    equal = stale[stale.sweep.isin([MAIN, PLAIN, TUNING])] if len(stale) else stale
    return Origin(len(cells), uncommitted, stale.cell.nunique(), equal.cell.nunique())
