"""Convert ledgers with old cell ids to today's identity, once: `python experiments/migrate_ledgers.py`.

An old id was a hash of the notebook's source, parameters, data and machine. If the notebook at the last old
commit gives a record's id, all code of the record is declared to be version 1. The record gets a new id and
keeps the old one as `formerly`. Records of older notebooks keep their id. Their code is unknown, so they are
stale. If two records have one id, the newer record is kept. No measured number changes, and a second run
changes nothing.
"""

import argparse
import json
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

import nbformat

from tal_lib.errors import TalError
from tal_lib.files import REPOSITORY, digest, write_text
from tal_lib.sweeps.identity import current_code
from tal_lib.sweeps.ledger import read_ledger, recency
from tal_lib.sweeps.notebook import RECORDS

LAST = "9c22472"  # the last commit whose notebooks have the old ids


def _git(*arguments):
    return subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True)


@cache
def old_code(notebook: str) -> str | None:
    """The part of a notebook that the old id hashed: the code cells up to the last one that records."""
    if _git("cat-file", "-e", f"{LAST}^{{commit}}").returncode:
        raise TalError(f"commit {LAST} is not in this clone", remedy="`git fetch --unshallow` gets it.")
    shown = _git("show", f"{LAST}:notebooks/{notebook}")
    if shown.returncode:
        return None
    cells = [cell for cell in nbformat.reads(shown.stdout, as_version=4).cells if cell.cell_type == "code"]
    recorded = [number for number, cell in enumerate(cells) if RECORDS.search(cell.source)]
    return json.dumps([cell.source for cell in cells[: recorded[-1] + 1 if recorded else None]])


def old_id(record: dict) -> str:
    """The id by the old formula, for the notebook at the last old commit; empty without that notebook."""
    code, machine = old_code(record["notebook"]), record.get("machine", "")
    data = record["provenance"]["data_hash"]
    return digest(code, record["parameters"], data, *filter(None, [machine])) if code else ""


def migrated(record: dict) -> dict:
    """A record with today's identity. A record that already has it stays as it is."""
    if "code" in record:
        return record
    if old_id(record) != record["id"]:
        return record | {"code": None}
    data, machine = record["provenance"]["data_hash"], record.get("machine", "")
    id = current_code().id(record["notebook"], record["parameters"], data, machine, {})
    return record | {"id": id, "formerly": record["id"], "code": {}}


def migrate(folder: Path) -> Counter:
    """Migrate all ledgers of a folder.

    Returns the number of records: renamed, of unknown code, dropped for a newer record, and in total.
    """
    ledgers, counts = {}, Counter()
    for path in sorted(folder.glob("*.jsonl")):
        before = list(read_ledger(path).values())
        ledgers[path] = [migrated(record) for record in before]
        counts["renamed"] += sum(a["id"] != b["id"] for a, b in zip(before, ledgers[path]))
    newest: dict[str, dict] = {}
    for record in (record for records in ledgers.values() for record in records):
        if record["id"] not in newest or recency(record) > recency(newest[record["id"]]):
            newest[record["id"]] = record
    for path, records in ledgers.items():
        kept = [record for record in records if newest[record["id"]] is record]
        counts["dropped"] += len(records) - len(kept)
        counts["of unknown code"] += sum(record["code"] is None for record in kept)
        counts["records"] += len(kept)
        lines = sorted((record["id"], json.dumps(record, sort_keys=True)) for record in kept)
        write_text(path, "".join(line + "\n" for _, line in lines), state=True)
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=REPOSITORY / "results")
    print(
        ", ".join(
            f"{count} {what}" for what, count in migrate(parser.parse_args().results / "ledger").items()
        )
    )
