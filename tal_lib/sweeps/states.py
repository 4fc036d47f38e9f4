"""The state of a cell: it has a result, only a result of older code, or no result."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tal_lib.sweeps.grid import Cell
from tal_lib.sweeps.identity import differences
from tal_lib.sweeps.ledger import cell_key, recency, same_cell

DONE, STALE, TO_DO = "done", "stale", "to do"


@dataclass(frozen=True)
class State:
    """State of one cell."""

    name: str = TO_DO
    changes: tuple[tuple[str, str, str], ...] = ()  # if stale: area, its version, current version


def states_of(cells: Iterable[Cell], records: list[dict]) -> dict[str, State]:
    """Cell id -> state of the cell.

    A cell is stale if other code made its newest record. Notebook, parameters, data and machine are the same.
    """
    ids = {record["id"] for record in records}
    newest: dict[tuple[str, str], dict] = {}
    for record in records:
        key = cell_key(record), record["provenance"]["data_hash"]
        if key not in newest or recency(record) > recency(newest[key]):
            newest[key] = record
    states = {}
    for cell in cells:
        if cell.id in ids:
            states[cell.id] = State(DONE)
            continue
        record = newest.get((same_cell(cell.notebook.name, cell.parameters, cell.machine), cell.data_hash))
        states[cell.id] = (
            State(STALE, tuple(differences(record.get("code"), cell.code))) if record else State()
        )
    return states


def state_lines(stale: Iterable[Iterable[tuple[str, str, str]]]) -> list[str]:
    """Text lines that count the stale cells by change of code, the most frequent change first."""
    counts = Counter(change for changes in stale for change in changes)
    remedy = "`--again stale` runs them"
    return [
        f"{count} cells were computed by other code of {area} (version {before}, now {after}); {remedy}"
        for (area, before, after), count in counts.most_common()
    ]
