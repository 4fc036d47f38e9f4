"""The ledger: one line a finished cell, committed, so that a sweep can go on from a clone on another machine."""

import fcntl
import json
import os
import time
from contextlib import contextmanager
from pathlib import Path

import orjson

from tal_lib.errors import TalError
from tal_lib.files import write_text
from tal_lib.sweeps.versions import completed

RESULT = "cell.json"
SHARE_OF_WRITING = 0.05  # of a sweep's time: a large ledger is not written anew for every cell


def read_ledger(path: str | Path) -> dict[str, dict]:
    """Cell id → record, of a ledger file (none if there is no file)."""
    path = Path(path)
    if not path.is_file():
        return {}
    records = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            record = orjson.loads(line)
            records[record["id"]] = _complete(record)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise TalError(
                "not a ledger line",
                where=f"{path}, line {number}",
                remedy="Restore the file from git; finished runs in the run folders are found again.",
            ) from None
    return records


def finished_runs(folder: str | Path, ledger: str | Path | None = None) -> dict[str, dict]:
    """Cell id → record, of the whole run folders of a sweep. Half-written and failed ones are not read.

    Args:
        ledger: where most of them are written down already: only those that it lacks, or that are newer than it, are read.
    """
    records = {}
    if not Path(folder).is_dir():
        return records
    known = read_ledger(ledger) if ledger else {}
    written = os.stat(ledger).st_mtime if known else 0.0
    former = {
        record.get("formerly") for record in known.values()
    }  # ids that runs had, which the ledger has under others
    for entry in os.scandir(folder):
        if entry.name in known and entry.stat().st_mtime < written:
            continue
        if not entry.name.startswith(".") and not entry.name.endswith(".failed") and entry.is_dir():
            try:
                with open(os.path.join(entry.path, RESULT), "rb") as file:
                    record = orjson.loads(file.read())
            except (OSError, orjson.JSONDecodeError):
                continue
            if isinstance(record, dict) and record.get("id") == entry.name and entry.name not in former:
                records[entry.name] = _complete(record)
    return records


@contextmanager
def _locked(path):
    """Only one process at a time changes a ledger; the lock goes with the process, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.parent / f".{path.name}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def update_ledger(path: str | Path, records: dict[str, dict]) -> None:
    """Add records to a ledger: the union by id, written whole and renamed."""
    path = Path(path)
    if not records:
        return
    with _locked(path):
        union = read_ledger(path) | records
        text = "".join(json.dumps(union[key], sort_keys=True) + "\n" for key in sorted(union))
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text, state=True)


class LedgerWriter:
    """Adds records as they come, and writes the ledger so often that it takes a small share of the time, at the latest when closed.

    What is not written yet is in the run folders, where a resumed sweep finds it.
    """

    def __init__(self, path: Path):
        self.path, self._waiting, self._next = path, {}, 0.0

    def add(self, record: dict) -> None:
        self._waiting[record["id"]] = record
        if time.monotonic() >= self._next:
            self.flush()

    def flush(self) -> None:
        started = time.monotonic()
        update_ledger(self.path, self._waiting)
        self._waiting = {}
        self._next = time.monotonic() + (time.monotonic() - started) / SHARE_OF_WRITING


def _complete(record):
    """A record with the parameters that its notebook gained later."""
    if "parameters" in record:
        record["parameters"] = completed(record["notebook"], record["parameters"])
    return record


def ledgers(results: str | Path) -> list[dict]:
    """Every record of every ledger below a results folder; of an id that two ledgers have, the newer record."""
    records: dict[str, dict] = {}
    for path in sorted(Path(results).glob("ledger/*.jsonl")):
        for id, record in read_ledger(path).items():
            if id not in records or recency(record) > recency(records[id]):
                records[id] = record
    return list(records.values())


def same_cell(notebook: str, parameters: dict, machine: str = "") -> str:
    """What two results of the same cell share, whatever code and data they were made with."""
    return json.dumps([notebook, parameters, machine], sort_keys=True)


def cell_key(record: dict) -> str:
    """`same_cell` of a record."""
    return same_cell(record["notebook"], record["parameters"], record.get("machine", ""))


def recency(record: dict) -> tuple[int, str]:
    """The larger, the newer: how many results of the same cell were there before it, whatever the clock said; then the clock."""
    return record.get("generation", 0), record["provenance"]["utc"]


def read_all(results: str | Path) -> list[dict]:
    """Every current record of every ledger below a results folder, sorted by id.

    Of several records with the same notebook and parameters (and machine, where time was measured) only the newest is current: the others
    were made with an older notebook or older data.
    """
    current: dict[str, dict] = {}
    for record in ledgers(results):
        key = cell_key(record)
        if key not in current or recency(record) > recency(current[key]):
            current[key] = record
    return sorted(current.values(), key=lambda record: record["id"])
