"""The ledger: one line per finished cell. It is committed, so a sweep can continue from a clone elsewhere."""

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from tal_lib.disk import make_folder
from tal_lib.errors import TalError
from tal_lib.files import write_text
from tal_lib.sweeps.versions import completed

RESULT = "cell.json"
SHARE_OF_WRITING = 0.05  # of a sweep's time: a large ledger is not rewritten after every cell


def read_ledger(path: str | Path) -> dict[str, dict]:
    """Cell id → record, from a ledger file. Empty if there is no file."""
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
    """Cell id → record, from the complete run folders of a sweep. Incomplete and failed runs are skipped.

    Args:
        ledger: ledger that already has most of the records. Only folders that it lacks, or that are newer
            than it, are read, and a record that the ledger has in the same or a newer form is left out.
    """
    records = {}
    if not Path(folder).is_dir():
        return records
    known = read_ledger(ledger) if ledger else {}
    written = os.stat(ledger).st_mtime if known else 0.0  # pyright: ignore[reportArgumentType]
    # earlier ids of runs that the ledger has under new ids
    former = {record.get("formerly") for record in known.values()}
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
    return only_newer(records, {id: recency(record) for id, record in known.items()})


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file or folder: only one process changes it at a time. The lock ends with the
    process."""
    make_folder(path.parent)
    with open(path.parent / f".{path.name}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def update_ledger(path: str | Path, records: dict[str, dict]) -> None:
    """Add records to a ledger, by id. The whole file is written under a temporary name and renamed."""
    path = Path(path)
    if not records:
        return
    with locked(path):
        union = read_ledger(path) | records
        text = "".join(json.dumps(union[key], sort_keys=True) + "\n" for key in sorted(union))
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text, state=True)


class LedgerWriter:
    """Collects records and writes the ledger now and then, so that writing takes a small part of the time.

    `flush` writes what is left. Records that are not written yet are in the run folders, where a resumed
    sweep reads them.
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
    """Add the parameters that the notebook gained after the record was made."""
    if "parameters" in record:
        record["parameters"] = completed(record["notebook"], record["parameters"])
    return record


def ledgers(results: str | Path) -> list[dict]:
    """All records of all ledgers below a results folder. If two ledgers have the same id, the newer record
    counts."""
    records: dict[str, dict] = {}
    for path in sorted(Path(results).glob("ledger/*.jsonl")):
        for id, record in read_ledger(path).items():
            if id not in records or recency(record) > recency(records[id]):
                records[id] = record
    return list(records.values())


def same_cell(notebook: str, parameters: dict, machine: str = "") -> str:
    """Key that all results of a cell share, for any code and data."""
    return json.dumps([notebook, parameters, machine], sort_keys=True)


def cell_key(record: dict) -> str:
    """`same_cell` of a record."""
    return same_cell(record["notebook"], record["parameters"], record.get("machine", ""))


def recency(record: dict) -> tuple[int, str]:
    """Sort key: the newer record is larger.

    First comes the generation: the number of earlier results of the same cell, which no clock can change.
    Then comes the time.
    """
    return record.get("generation", 0), record["provenance"]["utc"]


def only_newer(records: dict[str, dict], known: dict[str, tuple]) -> dict[str, dict]:
    """The records, by id, that are not known in the same or a newer form. known: id → `recency`.

    A run folder may be older than a ledger that came from elsewhere.
    """
    return {id: record for id, record in records.items() if id not in known or recency(record) > known[id]}


def read_all(results: str | Path) -> list[dict]:
    """All current records of all ledgers below a results folder, sorted by id.

    Several records may have the same notebook and parameters (and machine, if time was measured). Only the
    newest is current. The others come from an older notebook, older code or older data.
    """
    return sorted(current(ledgers(results)), key=lambda record: record["id"])


def current(records: Iterable[dict]) -> list[dict]:
    """The newest record of each cell: same notebook and parameters, and machine if time was measured."""
    newest: dict[str, dict] = {}
    for record in records:
        key = cell_key(record)
        if key not in newest or recency(record) > recency(newest[key]):
            newest[key] = record
    return list(newest.values())
