"""Ledgers of before today's identity: renamed once, with every number as it was."""

import importlib.util
import json

import pytest

from tal_lib.files import REPOSITORY
from tal_lib.sweeps.identity import current_code
from tal_lib.sweeps.ledger import read_ledger

SPEC = importlib.util.spec_from_file_location("migrate", REPOSITORY / "experiments" / "migrate_ledgers.py")


@pytest.fixture
def migrate(monkeypatch):
    module = importlib.util.module_from_spec(SPEC)
    SPEC.loader.exec_module(module)
    monkeypatch.setattr(module, "old_code", lambda notebook: '["the notebook as it was"]')
    return module


def record(number, utc, **more):
    provenance = {"utc": utc, "data_hash": "d", "git_commit": "abc"}
    tables = {"t": [{"square": number**2}]}
    return {
        "notebook": "n.ipynb",
        "parameters": {"n": number},
        "tables": tables,
        "provenance": provenance,
    } | more


def write(path, records):
    path.write_text("".join(json.dumps(row) + "\n" for row in records))


def test_ledgers_are_migrated_once(migrate, tmp_path):
    new = record(1, "2026-01-02", generation=1)
    new["id"] = migrate.old_id(new)
    older = record(1, "2026-01-01", id=new["id"])
    timed = record(2, "2026-01-01", machine="here")
    timed["id"] = migrate.old_id(timed)
    write(tmp_path / "a.jsonl", [new, timed, record(3, "2026-01-01", id="of an older notebook")])
    write(tmp_path / "b.jsonl", [older])
    counts = migrate.migrate(tmp_path)
    assert dict(counts) == {"renamed": 3, "dropped": 1, "of unknown code": 1, "records": 3}
    after = {row["parameters"]["n"]: row for row in read_ledger(tmp_path / "a.jsonl").values()}
    assert after[1]["id"] == current_code().id("n.ipynb", {"n": 1}, "d", "", {})
    assert after[2]["id"] == current_code().id("n.ipynb", {"n": 2}, "d", "here", {})
    assert (after[1]["formerly"], after[1]["code"]) == (new["id"], {})
    assert (after[3]["id"], after[3]["code"]) == ("of an older notebook", None)
    for before in (new, timed):
        same = after[before["parameters"]["n"]]
        assert all(same[name] == value for name, value in before.items() if name != "id")
    assert read_ledger(tmp_path / "b.jsonl") == {}
    texts = [(tmp_path / name).read_text() for name in ("a.jsonl", "b.jsonl")]
    assert migrate.migrate(tmp_path)["renamed"] == 0
    assert [(tmp_path / name).read_text() for name in ("a.jsonl", "b.jsonl")] == texts
