"""Bring ledgers whose cells were known by their notebook's text to today's identity, once: `python
experiments/migrate_ledgers.py`.

A cell's id was a hash of its notebook's source, its parameters, its data and its machine. Where a record's
id is what that gives for the notebook at the last commit before, all code it depends on is declared to be
version 1: the id is written anew, and the old one is kept as `formerly`. Records of older notebooks keep
their id; that the code is not known makes them stale. Of two records with one id the newer stays. No
measured number is touched, and a second run changes nothing.
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

LAST = "9c22472"  # the last commit with notebooks as the old ids know them


def _git(*arguments):
    return subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True)


@cache
def old_code(notebook: str) -> str | None:
    """What the old id hashed of a notebook: the sources of its code cells up to the one that records."""
    if _git("cat-file", "-e", f"{LAST}^{{commit}}").returncode:
        raise TalError(f"commit {LAST} is not in this clone", remedy="`git fetch --unshallow` gets it.")
    shown = _git("show", f"{LAST}:notebooks/{notebook}")
    if shown.returncode:
        return None
    cells = [cell for cell in nbformat.reads(shown.stdout, as_version=4).cells if cell.cell_type == "code"]
    recorded = [number for number, cell in enumerate(cells) if RECORDS.search(cell.source)]
    return json.dumps([cell.source for cell in cells[: recorded[-1] + 1 if recorded else None]])


def old_id(record: dict) -> str:
    """The id by the old formula, of the notebook at the last commit before; empty if it is not there."""
    code, machine = old_code(record["notebook"]), record.get("machine", "")
    data = record["provenance"]["data_hash"]
    return digest(code, record["parameters"], data, *filter(None, [machine])) if code else ""


def migrated(record: dict) -> dict:
    """A record under today's identity; as it is if it is one already."""
    if "code" in record:
        return record
    if old_id(record) != record["id"]:
        return record | {"code": None}
    data, machine = record["provenance"]["data_hash"], record.get("machine", "")
    id = current_code().id(record["notebook"], record["parameters"], data, machine, {})
    return record | {"id": id, "formerly": record["id"], "code": {}}


def migrate(folder: Path) -> Counter:
    """Migrate all ledgers of a folder; how many records were renamed, are of unknown code, or were dropped
    for a newer one.
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
        write_text(path, "".join(line + "\n" for _, line in lines))
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=REPOSITORY / "results")
    print(
        ", ".join(
            f"{count} {what}" for what, count in migrate(parser.parse_args().results / "ledger").items()
        )
    )
