"""The state of a cell: it has a result, only a result of older code, or no result."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tal_lib.sweeps.grid import Cell
from tal_lib.sweeps.identity import differences
from tal_lib.sweeps.ledger import cell_key, current, same_cell

DONE, STALE, TO_DO = "done", "stale", "to do"


@dataclass(frozen=True)
class State:
    """State of one cell."""

    name: str = TO_DO
    changes: tuple[tuple[str, str, str], ...] = ()  # if stale: area, its version, current version


def states_of(cells: Iterable[Cell], records: list[dict]) -> dict[str, State]:
    """Cell id -> state of the cell.

    The newest record of the same notebook, parameters and machine decides, since tables show that one. A cell
    is stale if other code made it from the same data. With other data, the cell is to do.
    """
    newest = {cell_key(record): record for record in current(records)}
    by_id = {record["id"]: record for record in records}
    states = {}
    for cell in cells:
        record = newest.get(same_cell(cell.notebook.name, cell.parameters, cell.machine))
        if cell.of_machine and not cell.machine:  # of a cluster: its machines are not known here
            record = by_id.get(cell.id)
        if record is None or record["provenance"]["data_hash"] != cell.data_hash:
            states[cell.id] = State()
            continue
        changes = tuple(differences(record.get("code"), cell.code)) if record["id"] != cell.id else ()
        states[cell.id] = State(STALE, changes) if changes else State(DONE)
    return states


def state_lines(stale: Iterable[Iterable[tuple[str, str, str]]]) -> list[str]:
    """Text lines that count the stale cells by change of code, the most frequent change first."""
    counts = Counter(change for changes in stale for change in changes)
    remedy = "`--again stale` runs them"
    return [
        f"{count} cells were computed by other code of {area} (version {before}, now {after}); {remedy}"
        for (area, before, after), count in counts.most_common()
    ]
