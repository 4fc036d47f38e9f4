"""Accepted values of a notebook's parameters, by annotation and by name.

The annotation is that of the parameters cell. A name means the same in every notebook of the study. A
parameter with an unknown name is checked by its annotation alone.
"""

import ast
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from tal_lib.errors import TalError, short
from tal_lib.files import data_root
from tal_lib.sweeps.notebook import PARAMETERS, code_cells
from tal_lib.validation import (
    Count,
    Finite,
    Fold,
    Fraction,
    NotNegative,
    Positive,
    Seed,
    Whole,
    unknown_name,
    validate,
)

ANNOTATIONS = {"str": str, "int": int, "float": Finite, "bool": bool, "list": list, "dict": dict}
# name -> type; for a list or a mapping, the type of each item
MEANINGS = {
    "fraction": Fraction,
    "fractions": Fraction,
    "people": Fraction,
    "annotated": Fraction,
    "also": str,
    "seen": Fraction,
    "seed": Seed,
    "seeds": Seed,
    "subset_seed": Annotated[int, Field(ge=-1, lt=2**32)],
    "split": Whole,
    "fold": Fold,
    "skip": Count,
    "repeat": Whole,
    "threads": Annotated[int, Field(ge=0, le=1024)],
    "lengths": Count,
    "windows": Count,
    "overlaps": Annotated[float, Field(ge=0, lt=1)],
    "passes": Count,
    "rounds": Count,
    "calibration": Count,
    "batch_size": Count,
    "max_steps": Count,
    "evaluate_every": Count,
    "min_seconds": NotNegative,
    "memory_limit_gb": Positive,
    "precisions": Literal["float32", "tf32", "bfloat16", "compiled"],
    "formats": Literal["onnx", "pt2", "torchscript"],
    "weights": NotNegative,
    "sizes": tuple[Count, Count],
}
CHOICES = {
    ("04_open_set.ipynb", "keep"): Literal["recordings", "stretches"],
    ("05_streams_and_distillation.ipynb", "study"): Literal["streams", "distillation", "ablation"],
}


def read_annotations(notebook: Path) -> dict[str, str]:
    """Parameter → its annotation as text, from the parameters cell of a valid notebook."""
    return {
        statement.target.id: ast.unparse(statement.annotation)  # pyright: ignore[reportAttributeAccessIssue]
        for source, tags in code_cells(notebook)
        if PARAMETERS in tags
        for statement in ast.parse(source).body
        if isinstance(statement, ast.AnnAssign)
    }


def checked_value(name: str, value, default, annotation: str | None, *, notebook: str, where: object) -> Any:
    """A parameter's value with the type that its notebook expects: floats become floats, text becomes a
    number.

    Lists and mappings stay as written, except that text in them may become a number.

    Args:
        default: the notebook's default value.
        annotation: the annotation as text, None if there is none.
        notebook: name of the notebook's file.

    Raises:
        TalError: names the parameter, its value and what is accepted.
    """
    base = ANNOTATIONS.get(annotation or "", type(default))
    label, remedy = f"parameter {name}", f"The notebook's own value is {short(default)}."
    meaning = CHOICES.get((notebook, name), MEANINGS.get(name, Any if base in (list, dict) else base))
    if base in (list, dict):
        value = validate(base, value, where=where, name=label, remedy=remedy)
        places = (
            enumerate(value, 1)  # of a list, from 1 as people count
            if base is list
            else value.items()  # pyright: ignore[reportAttributeAccessIssue]
        )
        items = {
            place: _as_written(
                item, validate(meaning, item, where=where, name=f"{label}.{place}", remedy=remedy)
            )
            for place, item in places
        }
        for item in value if name == "model_names" else ():
            _check_model(item, where)
        return list(items.values()) if base is list else items
    value = validate(meaning, value, where=where, name=label, remedy=remedy)
    if base is str:
        _check_name(name, value, where)
    return value


TOGETHER = (
    "model",
    "model_names",
    "preset",
    "options",
    "recipe",
    "study",
    "student",
    "student_options",
    "distillation",
)


def check_together(parameters: dict, *, where: object) -> None:
    """Check a cell's model together with the parameters that depend on it.

    Raises:
        TalError: there is no such preset, or an option or a recipe does not fit.
    """
    from tal_lib.models import config
    from tal_lib.training import Distillation, recipe_for

    preset = parameters.get("preset", "compact")
    model = parameters.get("model")
    try:
        for name in [model] if model else parameters.get("model_names", []):
            config(name, preset)
            _check_options("options", parameters.get("options") or {}, config, name, preset)
        if model:
            _check_options("recipe", parameters.get("recipe") or {}, recipe_for, model, preset)
        if model and parameters.get("study") == "distillation":
            student = parameters.get("student") or model
            validate(Distillation, parameters.get("distillation") or {}, name="parameter distillation")
            _check_options(
                "student_options", parameters.get("student_options") or {}, config, student, preset
            )
    except TalError as error:
        raise error.at(where) from None


def _check_options(kind, given, check, model, preset):
    for key in given:
        if not isinstance(key, str):
            raise TalError(f"{kind}: {short(key)} is not a name", remedy="Write NAME: VALUE.")
    try:
        check(model, preset, **given)
    except TalError as error:
        raise error.at(f"parameter {kind}") from None


def _check_name(name, value, where):
    """Check that a model, device or benchmark with this name exists. This machine may lack the device."""
    if name in ("model", "student") and value:
        _check_model(value, where)
    elif name == "device":
        from tal_lib.provenance import checked_device

        checked_device(value, where=f"{where}: parameter device", here=False)
    elif name == "shape_of":
        from tal_lib.data import list_benchmarks

        known = list(list_benchmarks().benchmark)
        if value not in known and not any(folder.is_dir() for folder in (Path(value), data_root() / value)):
            raise unknown_name(value, known, where=where, name=f"parameter {name}: benchmark")


def _check_model(name, where):
    from tal_lib.models import config, names

    if not isinstance(name, str):
        raise unknown_name(name, names(), where=where, name="model")
    try:
        config(name)
    except TalError as error:
        raise error.at(where) from None


def _as_written(given, checked):
    """A list's item as the grid has it, so that 30 and 30.0 stay different. Text becomes its number."""
    return checked if isinstance(given, str) else given
