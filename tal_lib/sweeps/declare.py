"""Declare versions of code.

A version is raised when numbers change. It is stamped when cells that are run again give the same numbers.
"""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from tal_lib.errors import TalError
from tal_lib.files import REPOSITORY
from tal_lib.provenance import git_commit, provenance
from tal_lib.sweeps.identity import Code, current_code
from tal_lib.sweeps.notebook import RECORDS, read_notebook
from tal_lib.sweeps.verify import EQUAL, Verdict, candidates, run_again
from tal_lib.sweeps.versions import FIRST, PATH, Declared, Versions, notebook_area

NEW, CHANGED, GONE = "new", "changed", "gone"
NOTEBOOKS = REPOSITORY / "notebooks"


def all_areas(code: Code, notebooks: Path = NOTEBOOKS) -> dict[str, str]:
    """Area -> fingerprint, for all code that makes numbers.

    These are the library's modules, the recipes and presets of all models, and the notebooks that record
    results.
    """
    from tal_lib import models

    areas = [
        *code.areas.files,
        *(f"{kind}/{name}" for kind in ("recipes", "presets") for name in models.every_name()),
    ]
    for path in sorted(notebooks.glob("*.ipynb")):
        if any(RECORDS.search(cell) for cell in read_notebook(path)[1]):
            areas.append(notebook_area(path.name))
    return {area: code.fingerprint(area, notebooks) for area in areas}


def undeclared(code: Code, notebooks: Path = NOTEBOOKS) -> dict[str, str]:
    """Area -> `NEW`, `CHANGED` or `GONE`, for areas whose code differs from the declared code."""
    now, declared = all_areas(code, notebooks), code.versions.areas
    states = {
        area: CHANGED if area in declared else NEW
        for area in now
        if _as_declared(declared, area) != now[area]
    }
    return states | {area: GONE for area in declared if area not in now}


def _as_declared(declared, area):
    return declared[area].fingerprint if area in declared else None


def chosen_areas(names: list[str], code: Code, notebooks: Path = NOTEBOOKS) -> list[str]:
    """The areas that names stand for.

    A name is an area, or a folder: then it stands for the undeclared areas in it. No names: all undeclared
    areas.

    Raises:
        TalError: there is no such area, or nothing in the folder has changed.
    """
    open_areas, known = undeclared(code, notebooks), {*all_areas(code, notebooks), *code.versions.areas}
    areas = [] if names else sorted(open_areas)
    for name in names:
        below = (
            [name] if name in known else sorted(area for area in open_areas if area.startswith(f"{name}/"))
        )
        if not below:
            raise TalError(f"no area {name!r} with changed code", remedy="`tal versions` lists them.")
        areas += below
    return list(dict.fromkeys(areas))


def raise_versions(
    areas: list[str], why: str, code: Code, notebooks: Path = NOTEBOOKS, path: Path = PATH
) -> Versions:
    """Declare that areas give other numbers now. Cells that depend on them become stale."""
    now, versions = all_areas(code, notebooks), code.versions
    _refuse_removed(areas, now)
    for area in areas:
        before = versions.areas.get(area)
        version = before.version + 1 if before else int(FIRST)
        versions.areas[area] = Declared(version, now[area])
        versions.raised.append({"area": area, "version": version, "why": why, **_when()})
    versions.write(path)
    return versions


def stamp_versions(
    areas: list[str],
    code: Code,
    results: str | Path = "results",
    *,
    sample: int = 3,
    seed: int | None = None,
    longest: float = 300.0,
    only: dict[str, str] | None = None,
    notebooks: Path = NOTEBOOKS,
    path: Path = PATH,
    tell: Callable[[Verdict], None] = lambda verdict: None,
) -> Versions:
    """Declare that areas give the same numbers as before, after a check.

    The check runs cells that depend on the areas again. Their numbers must be equal.

    Args:
        sample: least number of cells. For each area, at least one cell depends on it, if a ledger has any.
        seed: of the random draw.
        longest: seconds that a cell may take.
        only: parameter values that a cell must have (compared as text).
        tell: called with the verdict of each cell.

    Raises:
        TalError: a cell gave other numbers, or no cell of an area is short enough. Then nothing is declared.
    """
    now, versions = all_areas(code, notebooks), code.versions
    removed = [area for area in areas if area not in now]
    _refuse_removed([area for area in removed if versions.areas[area].version > int(FIRST)], now)
    cells = _cells_for(
        [area for area in areas if area in now], code, results, sample, seed, longest, only, notebooks
    )
    for record in cells:
        verdict = run_again(record, notebooks, tolerance=0.0)
        tell(verdict)
        if verdict.verdict != EQUAL:
            raise TalError(
                f"cell {verdict.cell} of {verdict.notebook} has other numbers ({verdict.verdict})",
                remedy="Declare the change: `tal versions raise`.",
            )
    for area in areas:
        if area in removed:
            del versions.areas[area]
        else:
            version = versions.areas[area].version if area in versions.areas else int(FIRST)
            versions.areas[area] = Declared(version, now[area])
    ids = [record["id"] for record in cells]
    versions.stamped.append(
        {"areas": areas, "cells": ids, "verdict": EQUAL if ids else "no cell depends on them", **_when()}
    )
    versions.write(path)
    return versions


def move_area(old: str, new: str, code: Code, notebooks: Path = NOTEBOOKS, path: Path = PATH) -> Versions:
    """Declare that the file of an area was moved. Records keep the area's first name."""
    now, versions = all_areas(code, notebooks), code.versions
    if old not in versions.areas or old in now or new not in now or new in versions.areas:
        raise TalError(
            f"cannot declare that {old} was moved to {new}",
            remedy="Give a declared area whose file no longer exists, and an area that is not declared yet.",
        )
    versions.areas[new] = versions.areas.pop(old)
    versions.moved[new] = versions.moved.pop(old, old)
    versions.write(path)
    return versions


def _refuse_removed(areas, now):
    if removed := [area for area in areas if area not in now]:
        raise TalError(
            f"the file of {removed[0]} no longer exists",
            remedy=f"Say where its code is now: `tal versions move {removed[0]} NEW`.",
        )


def _cells_for(areas, code, results, sample, seed, longest, only, notebooks):
    """Records to run again: a random sample, with each area covered.

    The declared versions of the areas must have made them. They must also come from the same device and the
    same version of torch, because only then the bits are equal.
    """
    here = provenance()
    same = lambda record: all(
        record["provenance"][name] == here[name] for name in ("device_name", "torch_version")
    )
    records, _ = candidates(results)
    suitable = {record["id"] for record in candidates(results, longest, only)[0] if same(record)}
    random.Random(seed).shuffle(records)
    depending = []
    for record in records:
        path = notebooks / record["notebook"]
        if record.get("code") is None or not path.is_file():
            continue
        needed = [area for area in areas if area in code.needs(path, record["parameters"])]
        made_by = {area: record["code"].get(code.versions.moved.get(area, area), FIRST) for area in needed}
        if needed and all(made_by[area] == str(_version(code, area)) for area in needed):
            depending.append((record, set(needed)))
    chosen, covered = [], set()
    for record, needed in depending:
        if record["id"] in suitable and (needed - covered or len(chosen) < sample):
            chosen.append(record)
            covered |= needed
    if missing := sorted(set().union(*(needed for _, needed in depending)) - covered):
        raise TalError(
            f"{missing[0]}: no cell of this kind of machine depends on it and takes at most {longest:g} s"
            + (f", with {only}" if only else ""),
            remedy="Raise --longest, run such a cell with the previous code, or raise the version.",
        )
    return chosen


def _version(code, area):
    declared = code.versions.areas.get(area)
    return declared.version if declared else FIRST


def _when():
    return {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "git_commit": git_commit()}


def fresh_code() -> Code:
    """A copy of the current code, to declare versions of. Changes of the copy do not affect other callers."""
    return Code(versions=current_code().versions.copy())
