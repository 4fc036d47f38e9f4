"""A grid in YAML → its cells.

    name: hapt_first                      # optional: the file's name
    cells:
      - notebook: 02_train_evaluate.ipynb # beside the sweeps folder
        parameters: {benchmark: hapt}     # the same in all cells
        grid: {model: [actionformer, bilstm], fraction: [0.1, 1.0], seed: [0, 1, 2]}   # every combination

Options of a block:
    alone: true     its cells measure time: they run after the others, one at a time
    on_each_machine: true   its cells belong to one machine, though they may run beside others
    gpu: true       on a cluster, its cells run on workers that have a GPU
    time_limit: 30  minutes; a cell that runs longer is stopped
    search, tuned:  a random search over settings, and its best trial; see `tal_lib.sweeps.search`

`tal_lib.sweeps.identity` defines the id of a cell. If a cell measures time, the machine's name is part of the
id. A measurement of one machine is then neither done nor replaced on another. The workers of a cluster are
not known in advance: there the name is left out.
"""

import itertools
import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tal_lib.data.folds import OFFICIAL
from tal_lib.data.registry import check_known
from tal_lib.errors import TalError
from tal_lib.files import work_folder
from tal_lib.provenance import checked_device, device_name
from tal_lib.reading import means
from tal_lib.sweeps.grid_file import combinations, read_grid
from tal_lib.sweeps.identity import about_data, check_fold_of, check_skip_of, current_code, data_of
from tal_lib.sweeps.notebook import read_notebook
from tal_lib.sweeps.parameters import TOGETHER, check_together, read_annotations
from tal_lib.sweeps.search import NoTrial, tuned
from tal_lib.validation import unknown_name

OUT = "out_dir"  # parameter that says where a cell writes
SETTINGS = ("recipe", "options")  # parameters that a search or its best trial changes


@dataclass(frozen=True)
class Cell:
    """One run of one notebook."""

    sweep: str
    notebook: Path
    parameters: dict = field(hash=False)  # complete: the notebook's defaults and the grid's values
    data_hash: str
    id: str
    alone: bool = False  # no other cell may run at the same time
    machine: str = ""  # to which it belongs; empty: to none, or the machine is unknown
    of_machine: bool = False  # it belongs to one machine, whose name is part of its id
    gpu: bool = False  # it needs a GPU
    time_limit: float | None = None  # seconds
    code: dict = field(default_factory=dict, hash=False)  # area -> version, of its code

    def label(self) -> str:
        """Short text for the cell."""
        return label(self.parameters)


def label(parameters: dict) -> str:
    """Short text for a cell's parameters."""
    return " ".join(str(value) for value in parameters.values() if value not in ("", None, {}, []))


def chosen(parameters: dict, only: dict[str, str] | None) -> bool:
    """Whether parameters have all the requested values, which are text: `fraction=1` is 1.0."""
    return all(means(text, parameters.get(name)) for name, text in (only or {}).items())


def plan(
    path: str | Path,
    only: dict[str, str] | None = None,
    *,
    here: bool = True,
    results: str | Path | None = None,
) -> list[Cell]:
    """All cells of a grid file, in order, without repeats.

    Args:
        only: keep the cells whose parameters have these values, given as text. All of the grid is checked,
            but the data and the device of the other cells need not be here.
        here: whether the cells will run on this machine.
        results: folder of the ledgers. Tuned settings come from its trials; if it has no ledger of their
            search, from the study's.
    """
    grid = read_grid(path)
    cells = {}
    about_data.cache_clear()  # features may have changed since this process planned before
    defaults = [read_notebook(grid.notebook(block))[0] for block in grid.blocks]
    known = [name for name in dict.fromkeys(itertools.chain(*defaults)) if name != OUT]
    for name in only or {}:
        if known and name not in known:
            raise unknown_name(name, known, where=f"{grid.path}, --only", name="parameter")
    for number in range(len(grid.blocks)):
        for cell in _expand(grid, number, here, only, results):
            cells.setdefault(cell.id, cell)
    return list(cells.values())


def plan_some(path: str | Path, only: dict[str, str] | None = None, **options) -> list[Cell]:
    """As `plan`, with its options. `TalError` if there is no cell."""
    cells = plan(path, only, **options)
    if not cells:
        raise TalError(
            "the grid has no cell with these values",
            where=path,
            remedy="Check --only and the lists of the grid.",
        )
    return cells


def _expand(grid, number, here, only, results):
    block, place = grid.blocks[number], f"{grid.path}, block {number + 1}"
    notebook = grid.notebook(block)
    defaults, _ = read_notebook(notebook)
    code = current_code()
    fixed, lists = combinations(grid, number, defaults, read_annotations(notebook))
    together = set()  # combinations that were checked already
    combined = (defaults | fixed | dict(zip(lists, values)) for values in itertools.product(*lists.values()))
    if block.tuned:  # models without trials do not matter if they are not asked for
        early = {name: text for name, text in (only or {}).items() if name not in SETTINGS}
        combined = (parameters for parameters in combined if chosen(_portable(parameters), early))
    for parameters in (each for some in combined for each in _with_settings(some, block, results, place)):
        parameters.pop(OUT, None)  # the output folder is not part of the id
        key = json.dumps([parameters.get(name) for name in TOGETHER], default=str)
        if key not in together:
            check_together(parameters, where=place)
            together.add(key)
        if not chosen(_portable(parameters), only):
            _check_names(parameters, place)
            continue
        if "device" in fixed or "device" in lists:  # the notebook answers for its default
            checked_device(parameters["device"], where=f"{place}: parameter device", here=here)
        data = _with_data(parameters, place)
        alone, limit = block.alone, block.time_limit and 60 * block.time_limit
        of_machine = alone or block.on_each_machine
        machine = measured_on(parameters) if of_machine and here else ""
        made_by = code.of(notebook, parameters)
        yield Cell(
            grid.name,
            notebook,
            parameters,
            data,
            code.id(notebook.name, parameters, data, machine, made_by),
            alone,
            machine,
            of_machine,
            block.gpu,
            limit,
            made_by,
        )


def _portable(parameters):
    """Parameters whose benchmarks have their portable names, if they have one; what is wrong with them shows
    later."""
    with suppress(TalError):
        parameters = parameters | (
            {"benchmark": name_of(parameters["benchmark"])} if parameters.get("benchmark") else {}
        )
        return parameters | (
            {"also": [name_of(each) for each in parameters["also"]]} if parameters.get("also") else {}
        )
    return parameters


def _check_names(parameters, place):
    """Check the names of a cell's benchmarks. Their data need not be here."""
    for name in ("benchmark", "also"):
        given = parameters.get(name) or []
        for benchmark in [given] if isinstance(given, str) else given:
            try:
                check_known(benchmark)
            except TalError as error:
                raise error.at(f"{place}: parameter {name}") from None


def _with_data(parameters, place):
    """Hash of the data. Benchmarks get their portable names; each must be here and have the fold."""

    def known(name, benchmark):
        try:
            benchmark = name_of(benchmark)
            data_hash(benchmark)
        except TalError as error:
            raise error.at(f"{place}: parameter {name}") from None
        if "fold" in parameters:
            check_fold_of(benchmark, parameters["fold"], f"{place}: parameter fold")
        if parameters.get("skip", 1) > 1:
            check_skip_of(benchmark, parameters["skip"], f"{place}: parameter skip")
        return benchmark

    if parameters.get("benchmark"):
        parameters["benchmark"] = known("benchmark", parameters["benchmark"])
    if parameters.get("also"):
        parameters["also"] = [known("also", each) for each in parameters["also"]]
    return data_of(parameters, data_hash)


def _with_settings(parameters, block, results, place):
    """The parameters once for each trial of the block's search, or with the tuned settings it asks for.

    Settings that the grid gives itself come first.
    """
    if block.search is None and block.tuned is None:
        return [parameters]
    names = ("model", "preset", "recipe", "options", *(("benchmark", "fraction") if block.tuned else ()))
    needed = [name for name in names if name not in parameters]
    if needed or (block.search and block.tuned):
        problem = f"no parameter {needed[0]} to search or tune" if needed else "search and tuned in one block"
        raise TalError(
            problem, where=place, remedy="Use them with notebooks that train a model, one per block."
        )
    if block.search:
        trials = block.search.drawn(parameters["model"], parameters["preset"])
    else:
        source = block.tuned
        ledgers = [
            Path(folder) / "ledger" / f"{source.sweep}.jsonl"
            for folder in (results, work_folder() / "results")
            if folder is not None
        ]
        ledger = next(filter(Path.is_file, ledgers), ledgers[0])
        fold = parameters.get("fold", OFFICIAL) if source.fold is None else source.fold
        known = (parameters[name] for name in ("model", "preset", "fraction"))
        try:
            check_known(source.benchmark or parameters["benchmark"])
            benchmark = name_of(source.benchmark or parameters["benchmark"])
            best = tuned(ledger, benchmark, *known, fold=fold)
        except NoTrial as error:
            if ledger != ledgers[0]:  # nor does the study have any
                error = TalError(
                    f"{error.problem}, and no {ledgers[0]}",
                    remedy=f"Run the grid {source.sweep} with the same --results first.",
                )
            raise error.at(place) from None
        except TalError as error:
            raise error.at(place) from None
        trials = [(best.recipe, best.options)]
    return [
        parameters | {"recipe": recipe | parameters["recipe"], "options": options | parameters["options"]}
        for recipe, options in trials
    ]


def measured_on(parameters: dict) -> str:
    """Name of the device that a cell with these parameters measures. Empty if this machine has no such
    device."""
    device = parameters.get("device", "cpu")
    if device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            return ""
    return device_name(device)


def name_of(benchmark: str) -> str:
    """A benchmark's name in a cell's id. For a folder it is the folder's name, not its path."""
    from tal_lib.data import portable_name

    return portable_name(benchmark)


def data_hash(benchmark: str) -> str:
    """Hash of a benchmark's data, as its loader computes it."""
    return about_data(benchmark)[0]
