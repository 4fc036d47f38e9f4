"""A grid file: its path, its content, and the checks against its notebooks before anything runs.

Where a list of models is expected, the grid may have `all`, a family (`one_stage`, `set_prediction`,
`proposals`, `dense`, `language`), a model, or a list of these. `all - [stale, ssn]` and `proposals - [ssn]`
leave some out. `all` includes every registered model, also those of plug-ins.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tal_lib.errors import TalError, short
from tal_lib.files import checked_name, study_folder
from tal_lib.reading import read_yaml
from tal_lib.sweeps.parameters import checked_value
from tal_lib.sweeps.search import Search, Tuned
from tal_lib.validation import Positive, Whole, unknown_name, validate

SEE = "See the grids in notebooks/sweeps."
KEYS = ("name", "cells", "detections")
MODEL_PARAMETERS = ("model", "model_names")  # parameters that accept families of models
WITHOUT = re.compile(r"([\w.-]+)\s*-\s*\[([^\[\]]*)\]")


@dataclass(frozen=True, kw_only=True)
class Block:
    """Cells of one notebook: every combination of the grid's values.

    alone: the cells measure time and run one at a time; gpu: they need a GPU; time_limit: minutes.
    on_each_machine: the cells are done again on another CPU or GPU, as those that run alone always are.
    search, tuned: see `tal_lib.sweeps.search`.
    """

    notebook: str
    parameters: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, Any] = field(default_factory=dict)
    alone: bool = False
    gpu: bool = False
    on_each_machine: bool = False
    time_limit: Positive | None = None
    search: Search | None = None
    tuned: Tuned | None = None


@dataclass(frozen=True, kw_only=True)
class GridFile:
    """A sweep's name and its blocks; `path` is the file.

    detections: how many detections of each recording the sweep keeps in `results/detections`; 0: none.
    """

    name: str
    blocks: tuple[Block, ...]
    path: Path
    detections: int = 0

    def notebook(self, block: Block) -> Path:
        """The file of a block's notebook: beside the grid's folder, in that folder, or in the study's folder.

        Raises:
            TalError: there is no such file.
        """
        given = Path(block.notebook)
        folders = [self.path.parent.parent, self.path.parent, study_folder()]
        places = [given] if given.is_absolute() else [folder / given for folder in folders]
        for place in places:
            if place.is_file():
                return place.resolve()
        raise TalError(
            f"notebook {short(block.notebook)} not found",
            where=self.path,
            remedy="Name one of the files in notebooks/.",
        )


def grids() -> list[str]:
    """The names of the study's sweeps."""
    return sorted(path.stem for path in (study_folder() / "sweeps").glob("*.yaml"))


def find_grid(given: str | Path) -> Path:
    """A grid's file, from its path or from the name of one of the study's sweeps.

    Raises:
        TalError: there is no such file and no such sweep.
    """
    try:
        if Path(given).exists():
            return Path(given).resolve()
    except (OSError, ValueError):  # a name that no file can have
        pass
    name, known = str(given).removesuffix(".yaml"), grids()
    if name in known:
        return study_folder() / "sweeps" / f"{name}.yaml"
    raise TalError(
        "grid file not found",
        where=short(str(given)),
        remedy=f"Give its path, or a sweep's name: {', '.join(known)}.",
    )


def read_grid(given: str | Path) -> GridFile:
    """Read a grid file and check its structure. Its parameters are not checked yet.

    Raises:
        TalError: the first problem, with file and block.
    """
    path = find_grid(given)
    content = read_yaml(path, what="grid file", remedy=SEE)
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise TalError("a grid holds `name` and a list `cells`", where=path, remedy=SEE)
    for key in content:
        if key not in KEYS:
            raise unknown_name(key, KEYS, where=path, name="entry")
    name = content.get("name", path.stem)
    name = checked_name(str(name) if isinstance(name, int | float) else name, what="name", where=path)
    blocks = []
    for number, block in enumerate(content["cells"], 1):
        place = f"{path}, block {number}"
        if isinstance(block, dict):  # `parameters:` with no value after it
            block = {key: value for key, value in block.items() if value is not None or key == "notebook"}
            if isinstance(block.get("tuned"), str):  # the short form
                block["tuned"] = {"sweep": block["tuned"]}
        blocks.append(validate(Block, block, where=place))
    kept = validate(Whole, content.get("detections", 0), where=path, name="detections")
    return GridFile(name=name, blocks=tuple(blocks), path=path, detections=kept)


def combinations(grid: GridFile, number: int, defaults: dict, kinds: dict) -> tuple[dict, dict]:
    """A block's fixed parameters and its lists of values, each checked against the notebook's parameters.

    Args:
        number: index of the block, from 0.
        defaults: the notebook's parameters, name → value.
        kinds: the notebook's parameters, name → annotation.

    Raises:
        TalError: names file, block, parameter and value.
    """
    block, place = grid.blocks[number], f"{grid.path}, block {number + 1}"
    for name in (*block.parameters, *block.grid):
        if name not in defaults:
            raise unknown_name(name, defaults, where=place, name="parameter")

    def checked(name, value):
        if name == "model_names":
            value = expand_models(value, where=f"{place}: parameter {name}")
        return checked_value(
            name,
            value,
            defaults[name],
            kinds.get(name),
            notebook=Path(block.notebook).name,
            where=place,
        )

    fixed = {name: checked(name, value) for name, value in block.parameters.items()}
    lists = {}
    for name, values in block.grid.items():
        if name == "model":
            values = expand_models(values, where=f"{place}: parameter {name}")
        if not isinstance(values, list) or not values:
            raise TalError(
                f"grid entry {name}: {short(values)} is not a list of values",
                where=place,
                remedy=f"Write {name}: [a, b].",
            )
        lists[name] = [checked(name, value) for value in values]
    return fixed, lists


def expand_models(given, *, where: object = None) -> Any:
    """A list of model names from `all`, families, names, and `… - [some]`. Other values stay as they are.

    Raises:
        TalError: an unknown model or family.
    """
    if isinstance(given, str):
        return _models_of(given, where)
    if isinstance(given, list) and all(isinstance(item, str) for item in given):
        return [name for item in given for name in _models_of(item, where)]
    return given


def _models_of(text, where):
    from tal_lib.models import every_name, families, names

    groups = {"all": names()} | families()
    match = WITHOUT.fullmatch(text.strip())
    base, left_out = (
        (match[1], [name.strip() for name in match[2].split(",") if name.strip()]) if match else (text, [])
    )
    for name in (base, *left_out):
        if name not in groups and name not in every_name():
            raise unknown_name(name, [*groups, *every_name()], where=where, name="model or family")
    without = {name for item in left_out for name in groups.get(item, [item])}
    return [name for name in groups.get(base, [base]) if name not in without]
