"""The identity of a result: notebook, complete parameters, data, code, and the machine if time is measured.

The code counts by the effective version of each area (`tal_lib.sweeps.areas`) that the cell depends on. An
area at version 1 adds nothing to the id. Code can therefore be split into more files without changing the ids
of all cells.
"""

import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd

from tal_lib import plugins
from tal_lib.errors import TalError
from tal_lib.files import REPOSITORY, digest
from tal_lib.sweeps.areas import COMPACT, LIBRARY, Areas, models_in
from tal_lib.sweeps.ledger import ledgers, read_all
from tal_lib.sweeps.notebook import read_notebook
from tal_lib.sweeps.versions import FIRST, PATH, Versions, notebook_area, read_versions

RECHECK_SECONDS = 60.0  # loading a benchmark takes seconds, and a sweep has thousands of cells
UNKNOWN = "unknown"  # version of code that was not recorded
FORMULA = "cell 2"

_LOOKING, _looked = threading.Lock(), time.monotonic()


class Code:
    """The code of a library and of notebooks, as it is now.

    Args:
        library: folder of the package.
        versions: declared versions of the library.
    """

    def __init__(self, library: Path = LIBRARY, versions: Versions | None = None):
        self.versions = read_versions() if versions is None else versions
        self.areas = Areas(library, self.versions.moved)
        self._known: dict[tuple, dict[str, str]] = {}

    def fingerprint(self, area: str, notebooks: Path = REPOSITORY / "notebooks") -> str:
        """Fingerprint of any area. notebooks: folder of the notebooks."""
        if area.startswith("notebooks/"):
            return self.areas.fingerprint_of(read_notebook(notebooks / f"{area.partition('/')[2]}.ipynb")[1])
        return self.areas.fingerprint(area)

    def needs(self, notebook: Path, parameters: dict) -> list[str]:
        """Areas that a cell depends on, sorted."""
        cells = read_notebook(notebook)[1]
        models = models_in(parameters)
        areas = set().union(*(self.areas.needs(cells, models, loader) for loader in _loaders(parameters)))
        if parameters.get("preset", COMPACT) != COMPACT:
            areas |= {f"presets/{model}" for model in models}
        return sorted(areas | {notebook_area(notebook.name)})

    def of(self, notebook: Path, parameters: dict) -> dict[str, str]:
        """Area -> effective version, of the areas that a cell depends on. Areas at version 1 are left out.

        An area that was moved has its first name.
        """
        notebook = Path(notebook)
        key = (
            notebook,
            notebook.stat().st_mtime_ns if notebook.is_file() else 0,
            models_in(parameters),
            parameters.get("preset", COMPACT),
            _loaders(parameters),
        )
        if key not in self._known:
            versions = {
                self.versions.moved.get(area, area): self.versions.effective(
                    area, self.fingerprint(area, notebook.parent)
                )
                for area in self.needs(notebook, parameters)
            }
            self._known[key] = {area: version for area, version in versions.items() if version != FIRST}
        return self._known[key]

    def id(self, notebook: str, parameters: dict, data_hash: str, machine: str, code: dict[str, str]) -> str:
        """A cell's id.

        A parameter that the notebook gained later counts only if its value differs from the earlier one.

        Args:
            notebook: file name of the notebook.
            parameters: complete parameters.
            code: the result of `of`.
        """
        added = self.versions.added_to(notebook)
        counted = {
            name: value for name, value in parameters.items() if name not in added or value != added[name]
        }
        return digest(FORMULA, notebook, counted, data_hash, machine, code)


def current_code() -> Code:
    """The code as its files are now. The same object is returned until a file changes."""
    paths = [*LIBRARY.rglob("*.py"), PATH, *plugins.files()]
    return _code(tuple((path, path.stat().st_mtime_ns) for path in sorted(paths) if path.is_file()))


@cache
def _code(state):
    return Code()


@cache
def about_data(benchmark: str) -> tuple[str, str, int]:
    """Hash of a benchmark's data, as its loader computes it, the module that loads its features, and its
    number of folds."""
    from tal_lib.data import load_benchmark

    loaded = load_benchmark(benchmark)
    return loaded.data_hash, loaded.loader, len(loaded.folds)


def check_fold_of(benchmark: str, fold: int, place: str) -> None:
    """Raise `TalError` unless the benchmark has this fold (−1: the official split).

    The folds of `NAME_validation` are those of `NAME`: `load_benchmark` takes the validation part of a fold.
    """
    from tal_lib.data.folds import OFFICIAL, check_fold
    from tal_lib.data.registry import validation_of

    if fold == OFFICIAL:
        return
    count = about_data(validation_of(benchmark) or benchmark)[2]
    check_fold(fold, count, f"{place}, benchmark {benchmark}")


@cache
def check_skip_of(benchmark: str, skip: int, place: str) -> None:
    """Raise `TalError` if so many steps are skipped that too few are left of the benchmark's recordings."""
    from tal_lib.data import load_benchmark

    load_benchmark(benchmark).check_skip(skip, f"{place}, benchmark {benchmark}")


def benchmarks_of(parameters: dict) -> list[str]:
    """The benchmarks of a cell: its own, and those on which its model is tested too."""
    return [name for name in (parameters.get("benchmark"), *(parameters.get("also") or ())) if name]


def data_of(parameters: dict, hash_of: Callable[[str], str] | None = None) -> str:
    """Hash of the data of a cell with these parameters; empty if it has no benchmark.

    Args:
        hash_of: benchmark → hash of its data; None: that of its loader.
    """
    hash_of = hash_of or (lambda name: about_data(name)[0])
    hashes = [hash_of(name) for name in benchmarks_of(parameters)]
    return digest(*hashes) if len(hashes) > 1 else "".join(hashes)


def data_now(parameters: dict, planned: str) -> str:
    """`data_of` a cell, whose files are looked at again if that was more than `RECHECK_SECONDS` ago.

    They are looked at again at once if the hash is not the planned one: they may have been repaired.
    """
    global _looked
    with _LOOKING:
        now = time.monotonic()
        if now - _looked > RECHECK_SECONDS:
            _looked = now
            about_data.cache_clear()
        if (present := data_of(parameters)) != planned:
            about_data.cache_clear()
            present = data_of(parameters)
        return present


def _loaders(parameters):
    """Modules that load the features of a cell's benchmarks; one empty name if there is none."""
    loaders = []
    for name in benchmarks_of(parameters):
        try:
            loaders.append(about_data(name)[1])
        except TalError:  # not on this machine: an error is raised where the data is needed
            pass
    return tuple(dict.fromkeys(loaders)) or ("",)


def differences(made: dict[str, str] | None, now: dict[str, str]) -> list[tuple[str, str, str]]:
    """(area, version that made a record, current version) of every area that differs.

    If the code of the record is unknown, there is one entry for all code.
    """
    if made is None:
        return [("all code", UNKNOWN, "as it is")]
    areas = sorted({*made, *now})
    pairs = [(area, made.get(area, FIRST), now.get(area, FIRST)) for area in areas]
    return [(area, before, after) for area, before, after in pairs if before != after]


def changes_text(changes: list[tuple[str, str, str]]) -> str:
    """Changes of code as text: `models/tridet (version 1, now 2)`."""
    return ", ".join(f"{area} (version {before}, now {after})" for area, before, after in changes)


def stale_records(results: str | Path, notebooks: Path = REPOSITORY / "notebooks") -> pd.DataFrame:
    """Current records that today's code or data would replace: one row per area that differs.

    Columns: `sweep, cell, notebook, area, made_by, now`. `area` may be `all code` (the record does not name
    its code) or `data of <benchmark>` (with hashes). If the notebook or the data of a record is missing here,
    that part is not compared.
    """
    code, rows = current_code(), []
    for record in read_all(results):
        path = Path(notebooks) / record["notebook"]
        changes = (
            differences(record.get("code"), code.of(path, record["parameters"])) if path.is_file() else []
        )
        benchmark, made_of = record["parameters"].get("benchmark"), record["provenance"]["data_hash"]
        try:
            data = data_of(record["parameters"]) if benchmark else made_of
        except TalError:
            data = made_of
        changes += [(f"data of {benchmark}", made_of, data)] if data != made_of else []
        rows += [(record["sweep"], record["id"], record["notebook"], *change) for change in changes]
    return pd.DataFrame(rows, columns=["sweep", "cell", "notebook", "area", "made_by", "now"])


def uncommitted_records(results: str | Path) -> pd.DataFrame:
    """Records made from code with uncommitted changes, one row each: `sweep, cell, notebook, git_commit`."""
    rows = [
        (record["sweep"], record["id"], record["notebook"], record["provenance"]["git_commit"])
        for record in ledgers(results)
        if is_uncommitted(record)
    ]
    return pd.DataFrame(rows, columns=["sweep", "cell", "notebook", "git_commit"])


def is_uncommitted(record: dict) -> bool:
    """Whether a record was made from code with uncommitted changes. Its commit then ends in `+`."""
    return record["provenance"]["git_commit"].endswith("+")
