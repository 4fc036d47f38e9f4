"""Pages of cost from the ledger: inference (notebook 03) by shape and preset, and videos (notebook 10)."""

from pathlib import Path

import pandas as pd

from tal_lib.errors import TalError
from tal_lib.provenance import COLUMNS
from tal_lib.reports import tables
from tal_lib.reports.layout import Layout, file_stem, nearest

NOTEBOOK, OF_VIDEOS = "03_inference_cost.ipynb", "10_end_to_end.ipynb"
WHAT = ("shape_of", "preset", "device")  # parameters of the notebook that tell the pages apart


def measured(
    results: str | Path, shape_of: str, preset: str = "compact", device: str = "cpu"
) -> tuple[pd.DataFrame, dict]:
    """Rows of `inference_cost.csv` from the machine with the most of them, and that machine's description.

    Raises:
        TalError: the table has no such rows.
    """
    layout = nearest(results)
    rows = _rows(layout)
    if len(rows):
        alike = (rows.benchmark == shape_of) & (rows.preset == preset) & (rows.device == device)
        rows = tables.on_main_machine(rows[alike])
    if rows.empty:
        raise TalError(
            f"no measured cost of {preset} models on {device} at the shape of {shape_of}",
            where=layout.table("inference_cost"),
            remedy="Run `tal sweep inference_cost` and `tal report`, or leave `results` empty to measure.",
        )
    machines = tables.read_csv(layout.table("machines"))
    name = rows.device_name.iloc[0]
    about = machines[machines.device_name == name] if len(machines) else machines
    about = about.drop(columns={"sweep", "cell", *COLUMNS} - {"device_name"}, errors="ignore")
    machine = about.iloc[0].dropna().to_dict() if len(about) else {"device_name": name}
    return rows.reset_index(drop=True), machine


def pages(layout: Layout) -> dict[str, tuple[str, dict]]:
    """Name of each page of measured costs → its notebook and the notebook's parameters."""
    every = {Path(OF_VIDEOS).stem: (OF_VIDEOS, {})} if layout.table("end_to_end").is_file() else {}
    rows = _rows(layout)
    if rows.empty:
        return every
    measured_rows = rows.dropna(subset=["latency_s_median"])
    for given in dict.fromkeys(measured_rows[["benchmark", "preset", "device"]].itertuples(index=False)):
        extra = [name for name in (given.preset, given.device) if name not in ("compact", "cpu")]
        name = file_stem("_".join([Path(NOTEBOOK).stem, given.benchmark, *extra]))
        every[name] = NOTEBOOK, dict(zip(WHAT, given, strict=True))
    return every


def _rows(layout):
    return tables.read_csv(layout.table("inference_cost"))
