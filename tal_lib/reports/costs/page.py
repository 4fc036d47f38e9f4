"""Pages of cost from the ledger: inference (notebook 03) by shape and preset, and videos (notebook 10)."""

from pathlib import Path

import pandas as pd

from tal_lib.errors import TalError
from tal_lib.provenance import COLUMNS
from tal_lib.reports import tables
from tal_lib.reports.costs.shapes import conditions
from tal_lib.reports.layout import Layout, file_stem, nearest

STORED = "**This page shows stored measurements; it measured nothing itself.**"
NOTEBOOK, OF_VIDEOS = "03_inference_cost.ipynb", "10_end_to_end.ipynb"
WHAT = ("shape_of", "preset", "device")  # parameters of the notebook that tell the pages apart
ALIKE = ["benchmark", "preset", "device", "device_name"]  # columns with one value on a page
MACHINE = {  # columns of machines.csv, in words for readers
    "device_name": "device",
    "processor": "processor",
    "cores": "cores",
    "threads_per_core": "threads per core",
    "ceiling_gmac_s_float32": "matrix products of the processor, float32 (GMAC/s)",
    "ceiling_gmac_s_bfloat16": "matrix products of the processor, bfloat16 (GMAC/s)",
    "instruction_sets": "instruction sets",
    "l2_cache": "L2 cache",
    "l3_cache": "L3 cache",
    "frequency_governor": "frequency governor",
    "memory_gb": "memory (GB)",
    "gpu_memory_gb": "memory of the GPU (GB)",
    "gpu_driver": "driver of the GPU",
    "cuda": "CUDA",
    "tf32": "TF32 allowed",
    "energy_counter": "energy counter",
    "mkldnn": "oneDNN",
    "virtual_machine": "virtual machine",
    "system": "system",
    "python": "Python",
    "torch": "PyTorch",
}


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
        rows = _of_page(rows, shape_of, preset, device)
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


def machine_in_words(machine: dict) -> pd.DataFrame:
    """The description of a machine (see `tal_lib.cost.describe_machine`) for readers: a row per property."""
    known = pd.Series(machine, dtype=object).dropna()
    return known.reindex([name for name in MACHINE if name in known]).rename(MACHINE).to_frame("the machine")


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


def notes(layout: Layout) -> dict[str, str]:
    """Name of each page of measured costs → the note at its top: it measured nothing, and the conditions of
    what it shows, as the captions of the tables for readers have them.
    """
    texts, cost = {}, _rows(layout)
    every = list(conditions(cost)) if len(cost) else []
    for name, (notebook, parameters) in pages(layout).items():
        if notebook == OF_VIDEOS:
            stems = ["end_to_end", "end_to_end_live"]
        else:
            given = _of_page(cost, **parameters)[ALIKE].iloc[0]
            stems = [f"latency_{stem}" for stem, _, part in every if (part[ALIKE].iloc[0] == given).all()]
        there = [path for path in (layout.reader("cost", stem) for stem in stems) if path.is_file()]
        captions = [path.read_text(encoding="utf-8").splitlines()[0] for path in there]
        if notebook == NOTEBOOK:  # it has other costs too, so only the conditions are said
            endings = [caption.partition(": ")[2] for caption in captions]
            captions = [text[:1].upper() + text[1:] for text in endings]
        links = ", ".join(f"[{path.stem}](../readers/cost/{path.name})" for path in there)
        texts[name] = " ".join([STORED, *captions, *([f"Tables: {links}."] if links else [])])
    return texts


def _of_page(rows, shape_of, preset, device):
    """The rows of a page: those of the machine that measured most at this shape."""
    alike = (rows.benchmark == shape_of) & (rows.preset == preset) & (rows.device == device)
    return tables.on_main_machine(rows[alike])


def _rows(layout):
    return tables.read_csv(layout.table("inference_cost"))
