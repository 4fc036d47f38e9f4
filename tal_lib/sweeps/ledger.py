"""The ledger: one line a finished cell, committed, so that a sweep can go on from a clone on another machine."""

import json
import os
from pathlib import Path

from tal_lib.errors import TalError
from tal_lib.files import write_text

RESULT = "cell.json"


def read_ledger(path: str | Path) -> dict[str, dict]:
    """Cell id → record, of a ledger file (none if there is no file)."""
    path = Path(path)
    if not path.is_file():
        return {}
    records = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
            records[record["id"]] = record
        except (json.JSONDecodeError, KeyError, TypeError):
            raise TalError("not a ledger line", where=f"{path}, line {number}",
                           remedy="Restore the file from git; finished runs in the run folders are found again.") from None
    return records


def finished_runs(folder: str | Path) -> dict[str, dict]:
    """Cell id → record, of the whole run folders of a sweep. Half-written and failed ones are not read."""
    records = {}
    if not Path(folder).is_dir():
        return records
    for entry in os.scandir(folder):
        if entry.is_dir() and not entry.name.startswith(".") and not entry.name.endswith(".failed"):
            try:
                with open(os.path.join(entry.path, RESULT), encoding="utf-8") as file:
                    record = json.load(file)
            except (OSError, json.JSONDecodeError):
                continue
            if record.get("id") == entry.name:
                records[entry.name] = record
    return records


def update_ledger(path: str | Path, records: dict[str, dict]) -> dict[str, dict]:
    """Add records to a ledger: the union by id, written whole and renamed. Returns the union."""
    union = read_ledger(path) | records
    text = "".join(json.dumps(union[key], sort_keys=True) + "\n" for key in sorted(union))
    if not Path(path).is_file() or Path(path).read_text(encoding="utf-8") != text:
        write_text(path, text)
    return union


def finished_elsewhere(results: str | Path) -> set[str]:
    """Ids of all cells in any ledger: sweeps that share a cell share its result."""
    return {cell for path in Path(results).glob("ledger/*.jsonl") for cell in read_ledger(path)}


def read_all(results: str | Path) -> list[dict]:
    """Every current record of every ledger below a results folder, sorted by id.

    Of several records with the same notebook and parameters only the newest is current: the others were made
    with an older notebook or older data.
    """
    current: dict[str, dict] = {}
    for path in sorted(Path(results).glob("ledger/*.jsonl")):
        for record in read_ledger(path).values():
            key = json.dumps([record["notebook"], record["parameters"]], sort_keys=True)
            if key not in current or record["provenance"]["utc"] > current[key]["provenance"]["utc"]:
                current[key] = record
    return sorted(current.values(), key=lambda record: record["id"])
