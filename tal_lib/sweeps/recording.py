"""How a notebook stores its results for the sweep."""

import json
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path

import pandas as pd

from tal_lib.errors import TalError
from tal_lib.files import digest, write_json
from tal_lib.provenance import default_device, device_name

MEASURED = "measured.json"


def record(out_dir: str, tables: dict[str, pd.DataFrame], config=()) -> None:
    """Store tidy tables of a run. The sweep adds parameters and provenance and writes the ledger.

    Args:
        out_dir: the run folder. If it is empty (a notebook opened by hand), nothing is stored.
        tables: name of the results table → rows.
        config: dataclasses or plain values that determined the run; hashed into `config_hash`.
    """
    if not out_dir:
        return
    rows = {
        name: json.loads(
            table.to_json(orient="records", double_precision=10)  # pyright: ignore[reportArgumentType]
        )
        for name, table in tables.items()
    }
    plain = [
        asdict(part) if is_dataclass(part) else part  # pyright: ignore[reportArgumentType]
        for part in config
    ]
    if not any(rows.values()):
        raise TalError("a run recorded no rows", where=out_dir, remedy="Record at least one table.")
    write_json(
        Path(out_dir) / MEASURED,
        {
            "tables": rows,
            "config_hash": digest(json.loads(json.dumps(plain, default=str))),
            "device_name": device_name(default_device() if "torch" in sys.modules else "cpu"),
        },
    )
