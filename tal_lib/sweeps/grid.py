"""A grid in YAML → the cells it stands for.

    name: hapt_first                      # optional: the file's name
    cells:
      - notebook: 02_train_evaluate.ipynb # beside the sweeps folder
        parameters: {benchmark: hapt}     # the same in all cells
        grid: {model: [actionformer, bilstm], fraction: [0.1, 1.0], seed: [0, 1, 2]}   # every combination

A block may say `alone: true`: its cells measure time, so they run after the others, one at a time. `gpu: true`: on a cluster they go to
workers that have a GPU. `time_limit: 30`: minutes, then a cell that still runs is stopped.
A cell's id is a hash of the notebook's code, its parameters and the data's hash. The code counts up to where it records its tables: what
comes after that only shows them. Where a cell measures time its id is of the machine's name too: what one machine measured is neither done
nor replaced on another. A cluster's workers are not known beforehand: there the name is left out.
"""

import ast
import itertools
import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import nbformat
import yaml

from tal_lib.errors import TalError
from tal_lib.files import digest
from tal_lib.provenance import device_name

RECORDS = re.compile(r"^record\(", re.MULTILINE)
# of a block of cells
KEYS = {
    "notebook": str,
    "parameters": dict | None,
    "grid": dict | None,
    "alone": bool,
    "gpu": bool,
    "time_limit": int | float,
}


@dataclass(frozen=True)
class Cell:
    """One run of one notebook."""

    sweep: str
    notebook: Path
    parameters: dict = field(hash=False)  # complete: the notebook's defaults and the grid's values
    data_hash: str
    id: str
    alone: bool = False  # nothing else may run meanwhile
    machine: str = ""  # what it measures the time of; empty: it measures none, or the machine is not known
    gpu: bool = False  # only where a GPU is
    time_limit: float | None = None  # seconds

    def label(self) -> str:
        """The cell in a few words."""
        return label(self.parameters)


def label(parameters: dict) -> str:
    """A cell's parameters in a few words."""
    return " ".join(str(value) for value in parameters.values() if value not in ("", None, {}, []))


def chosen(parameters: dict, only: dict[str, str] | None) -> bool:
    """Whether parameters have all the values that were asked for (compared as text)."""
    return all(str(parameters.get(name)) == value for name, value in (only or {}).items())


def cell_id(code: str, parameters: dict, data: str, machine: str = "") -> str:
    """What a result is known by."""
    return digest(code, parameters, data, *filter(None, [machine]))


def plan(path: str | Path, only: dict[str, str] | None = None, *, here: bool = True) -> list[Cell]:
    """All cells of a grid file, in order, without repeats.

    Args:
        only: keep the cells whose parameters have these values (compared as text).
        here: whether they will run on this machine.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise TalError("grid file not found", where=path, remedy="See notebooks/sweeps.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise TalError(
            f"not valid YAML ({str(error).splitlines()[0]})", where=path, remedy="See notebooks/sweeps."
        ) from None
    blocks = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(blocks, list) or set(content) - {"name", "cells"}:
        raise TalError("a grid holds `name` and a list `cells`", where=path, remedy="See notebooks/sweeps.")
    cells = {}
    data_hash.cache_clear()  # a process may plan again after features were made anew
    for block in blocks:
        for cell in _expand(path, str(content.get("name", path.stem)), block, here):
            cells.setdefault(cell.id, cell)
    for name in only or {}:
        if cells and not any(name in cell.parameters for cell in cells.values()):
            raise TalError(
                f"no cell has a parameter {name!r}",
                where=path,
                remedy=f"Parameters: {', '.join(next(iter(cells.values())).parameters)}.",
            )
    return [cell for cell in cells.values() if chosen(cell.parameters, only)]


def _expand(path, sweep, block, here):
    if not isinstance(block, dict) or "notebook" not in block or set(block) - {*KEYS}:
        raise TalError(
            f"a block of cells holds {', '.join(KEYS)}, not {block!r}",
            where=path,
            remedy="See notebooks/sweeps.",
        )
    for name, kinds in KEYS.items():
        if name in block and not isinstance(block[name], kinds) or isinstance(block.get("time_limit"), bool):
            raise TalError(
                f"{name}: {block[name]!r} in a block of cells", where=path, remedy="See notebooks/sweeps."
            )
    if block.get("time_limit", 1) <= 0:
        raise TalError(
            f"time_limit: {block['time_limit']}", where=path, remedy="Give minutes, more than none."
        )
    notebook = (path.parent.parent / block["notebook"]).resolve()
    defaults, code = read_notebook(notebook)
    fixed, grid = block.get("parameters") or {}, block.get("grid") or {}
    given = [
        *fixed.items(),
        *((key, value) for key, values in grid.items() for value in _values(path, key, values)),
    ]
    for name, value in given:
        if name not in defaults:
            raise TalError(
                f"{notebook.name} has no parameter {name!r}",
                where=path,
                remedy=f"Parameters: {', '.join(defaults)}.",
            )
        known = defaults[name]
        if isinstance(known, float) and isinstance(value, int) and not isinstance(value, bool):
            continue
        if known is not None and type(value) is not type(known):
            raise TalError(
                f"parameter {name}: {value!r} is {type(value).__name__}, not {type(known).__name__}",
                where=path,
                remedy="Write numbers with a point (1.0e-4) and quote text.",
            )
    from tal_lib.data import portable_name

    for values in itertools.product(*grid.values()):
        parameters = defaults | fixed | dict(zip(grid, values))
        parameters = {
            name: float(value) if isinstance(defaults[name], float) else value
            for name, value in parameters.items()
        }
        parameters.pop("out_dir", None)  # where it is written is not part of what it is
        try:
            if parameters.get(
                "benchmark"
            ):  # a folder is known by its name: its path is no part of what a cell is
                parameters["benchmark"] = portable_name(parameters["benchmark"])
            data = data_hash(parameters["benchmark"]) if parameters.get("benchmark") else ""
        except TalError as error:
            raise TalError(f"a cell's data cannot be had: {error}", where=path) from None
        alone, limit = block.get("alone", False), 60 * block["time_limit"] if "time_limit" in block else None
        machine = measured_on(parameters) if alone and here else ""
        yield Cell(
            sweep,
            notebook,
            parameters,
            data,
            cell_id(code, parameters, data, machine),
            alone,
            machine,
            block.get("gpu", False),
            limit,
        )


def measured_on(parameters: dict) -> str:
    """Name of the device that a cell with these parameters measures; empty where it is not on this machine."""
    device = parameters.get("device", "cpu")
    if device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            return ""
    return device_name(device)


def _values(path, name, values):
    if not isinstance(values, list) or not values:
        raise TalError(
            f"grid entry {name} is not a list of values", where=path, remedy=f"Write {name}: [a, b]."
        )
    return values


def read_notebook(path: Path) -> tuple[dict, str]:
    """A notebook's default parameters (from the cell tagged `parameters`) and its code up to where it records, as text to hash."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise TalError(
            "notebook not found", where=path, remedy="Name one of the files in notebooks/."
        ) from None
    except Exception as error:
        raise TalError(
            f"not a notebook ({type(error).__name__})", where=path, remedy="Restore it from git."
        ) from None
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise TalError(f"has {len(tagged)} cells tagged `parameters`", where=path, remedy="Tag exactly one.")
    defaults = {}
    for statement in ast.parse(tagged[0].source).body:
        target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
        defaults[target.id] = ast.literal_eval(statement.value)
    recorded = [number for number, cell in enumerate(code) if RECORDS.search(cell.source)]
    return defaults, json.dumps([cell.source for cell in code[: recorded[-1] + 1 if recorded else None]])


@cache
def data_hash(benchmark: str) -> str:
    """Hash of a benchmark's data, as its loader computes it."""
    from tal_lib.data import load_benchmark

    return load_benchmark(benchmark).data_hash
