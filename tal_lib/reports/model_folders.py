"""Model folders from the runs of a sweep: weights as safetensors, `config.json` and a model card.

    results/models/<benchmark>/<model>/{model.safetensors, config.json, README.md}

`collect` reads the run of each cell of a grid, runs its test recordings again with the weights as they are
stored, and writes a folder only if the scores of the run come out.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import torch

from tal_lib.data import Benchmark
from tal_lib.data.batches import collate, unannotated
from tal_lib.data.registry import BENCHMARKS
from tal_lib.errors import TalError
from tal_lib.files import atomic_path
from tal_lib.reports import trained_card
from tal_lib.study import Scored, labelled_part
from tal_lib.sweeps import plan
from tal_lib.sweeps.grid import Cell
from tal_lib.sweeps.ledger import finished_runs
from tal_lib.training import Trained, load_model
from tal_lib.training.checkpoints import CARD, FOLDER, Statistics, folder_files
from tal_lib.writing import claim

MOST_BYTES = 20_000_000  # of all model folders together
CARD_BYTES = 20_000  # of a card and a config, in the estimate that chooses the precision
TOLERANCE = 0.02  # of avg mAP, as in `tal verify`: runs differ between processors
# licences of data whose weights may be given away -> licence of the weights
LICENCES = {"CC BY 4.0": "cc-by-4.0", "MIT": "mit", "none needed": "mit"}
LONGEST = 576  # steps of a recording on which outputs are compared
NOTEBOOK = "02_train_evaluate"
DATA = ("benchmark", "fold", "skip", "fraction", "people", "annotated", "seed", "subset_seed")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A finished run, whose model becomes a folder."""

    cell: Cell
    record: dict  # its line in the ledger
    trained: Trained
    data: Benchmark  # as the run saw it
    recordings: list[str] = field(default_factory=list)  # training recordings

    @property
    def name(self) -> str:
        """`benchmark/model`, the folder below `results/models/`."""
        return name_of(self.cell)

    @property
    def licence(self) -> str:
        """Licence of the weights, as the Hugging Face Hub names it."""
        return LICENCES[BENCHMARKS[self.cell.parameters["benchmark"]].licence]

    @property
    def scores(self) -> pd.Series:
        """mAP, 0 to 1, at each tIoU of the run."""
        rows = pd.DataFrame(self.record["tables"]["data_efficiency"])
        if "benchmark" in rows:  # tested on others too
            rows = rows[rows.benchmark == self.cell.parameters["benchmark"]]
        return rows.set_index("tiou")["map"]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """How the model with the stored weights compares with that of the run."""

    dtype: str
    difference: float  # of the outputs: root mean square, relative to that of the outputs
    avg_map: float  # 0 to 1, with the stored weights


def name_of(cell: Cell) -> str:
    """The folder of a cell's model below `results/models/`."""
    return f"{cell.parameters['benchmark']}/{cell.parameters['model']}"


def collect(
    grid: str | Path,
    out: str | Path,
    *,
    runs: str | Path = "runs",
    only: dict[str, str] | None = None,
    dtype: str | None = None,
    most_bytes: int = MOST_BYTES,
    results: str | Path | None = None,
) -> Iterator[tuple[Path, Stored]]:
    """Write the model folders of a grid below `out`; yield each with what it holds.

    All are checked before the first is written.

    Args:
        runs: folder of the run folders; only: cells with these parameter values.
        dtype: float32 or float16; None: float32 if all folders fit into `most_bytes`, else float16.
        most_bytes: limit on the bytes of all folders below `out` together.
        results: folder of the ledgers, from which a grid takes tuned settings; see `sweeps.plan`.

    Raises:
        TalError: a run is missing, its data may not be given away, its scores do not come out, the folders
            are too large, or a file would be replaced that this program did not write.
    """
    out, cells = Path(out), plan(grid, only, results=results)
    _check_cells(cells)
    places = {cell.id: _run_of(cell, runs, grid) for cell in cells}
    claim(out, [f"{name_of(cell)}/{file}" for cell in cells for file in FOLDER])
    dtype = dtype or _fitting([folder / "model.pt" for folder, _ in places.values()], most_bytes)
    made, loaded = [], {}
    for cell in cells:
        source = _source(cell, *places[cell.id], loaded)
        files, stored = _stored(source, dtype)
        made.append((out / source.name, files, stored))
    _check_size(out, made, dtype, most_bytes)
    for folder, files, stored in made:
        for name, content in files.items():
            with atomic_path(folder / name) as temporary:
                temporary.write_bytes(content)
        yield folder, stored


def _check_cells(cells):
    for cell in cells:
        if cell.notebook.stem != NOTEBOOK:
            raise TalError(
                f"a cell of {cell.notebook.name} trains no model that could be stored",
                where=cell.sweep,
                remedy=f"Name a grid of {NOTEBOOK}.ipynb.",
            )
        benchmark = cell.parameters["benchmark"]
        licence = BENCHMARKS[benchmark].licence if benchmark in BENCHMARKS else "not known"
        if licence not in LICENCES:
            raise TalError(
                f"licence of its data: {licence}; weights that were trained on it are not given away",
                where=benchmark,
                remedy=f"Use data under one of these: {', '.join(LICENCES)}.",
            )
    twice = [name for name, count in Counter(map(name_of, cells)).items() if count > 1]
    if twice:
        raise TalError(
            f"several cells train {twice[0]}",
            where=cells[0].sweep,
            remedy="Choose one with --only, such as --only fraction=1.0 --only fold=0 --only seed=0.",
        )


def _run_of(cell, runs, grid):
    """(run folder, record) of a cell, from any sweep below `runs`: a cell has the same id in every sweep."""
    for folder in sorted(Path(runs).glob(f"*/{cell.id}")):
        record = finished_runs(folder.parent).get(cell.id)
        if record and (folder / "model.pt").is_file():
            return folder, record
    raise TalError(
        f"no finished run of {name_of(cell)} (cell {cell.id})",
        where=runs,
        remedy=f"Run `tal sweep {grid}`; if only its ledger is here, `tal sweep {grid} --again`.",
    )


def _fitting(checkpoints, most_bytes):
    """float32 if the checkpoints fit, else float16."""
    whole = sum(path.stat().st_size + CARD_BYTES for path in checkpoints)
    return "float32" if whole <= most_bytes else "float16"


def _source(cell, folder, record, loaded):
    """The model of a run, with the statistics of its training recordings.

    `loaded` keeps the data of the last cell, which most cells share.
    """
    given = cell.parameters
    if (key := tuple(given[name] for name in DATA)) not in loaded:
        loaded.clear()
        loaded[key] = _data(given)
    data, recordings = loaded[key]
    trained = load_model(folder / "model.pt")
    if not trained.statistics_stated:  # by an earlier version
        trained = replace(trained, statistics=Statistics.of(data, trained.stream), statistics_stated=True)
    return Source(cell=cell, record=record, trained=trained, data=data, recordings=recordings)


def _data(given):
    """(data, training recordings) of a cell's parameters, as its notebook takes them."""
    from tal_lib.data import load_benchmark

    data = load_benchmark(given["benchmark"], fold=given["fold"]).every(given["skip"])
    sample = given["seed"] if given["subset_seed"] < 0 else given["subset_seed"]
    return labelled_part(
        data, given["fraction"], sample, people=given["people"], annotated=given["annotated"]
    )


def _stored(source, dtype):
    """(files of a model folder, how the stored model compares). The folder is read before it is written."""
    given, record = source.cell.parameters, source.record
    training = {
        **{name: given[name] for name in ("benchmark", "fold", "fraction", "people", "annotated", "seed")},
        "preset": given["preset"],
        "recipe": given["recipe"],
        "recordings": len(source.recordings),
        "data_licence": BENCHMARKS[given["benchmark"]].licence,
        "data_hash": record["provenance"]["data_hash"],
        "cell": source.cell.id,
        "git_commit": record["provenance"]["git_commit"],
        "utc": record["provenance"]["utc"],
        "avg_map": round(float(source.scores.mean()), 6),
    }
    files = folder_files(source.trained, dtype, training)
    with tempfile.TemporaryDirectory() as name:
        for file, content in files.items():
            (Path(name) / file).write_bytes(content)
        again = load_model(name)
    difference = _difference(source, again)
    scored = Scored(benchmark=source.data, model=again.model, stream=again.stream, device="cpu")
    stored = Stored(dtype=dtype, difference=difference, avg_map=float(scored.scores.mean()))
    if not abs(stored.avg_map - source.scores.mean()) <= TOLERANCE:
        raise TalError(
            f"{source.name}: the stored weights give {100 * stored.avg_map:.2f} avg mAP, "
            f"its run gave {100 * source.scores.mean():.2f}",
            where=source.cell.id,
            remedy="Train it again; if it was float16, add --dtype float32.",
        )
    card = trained_card.card(source, stored, len(files["model.safetensors"]))
    return files | {CARD: card.encode()}, stored


@torch.no_grad()
def _difference(source, again):
    """Difference of the outputs of two models on the test recordings; see `Stored.difference`."""
    squares = whole = 0.0
    spec, stream = source.trained.feature_spec, source.trained.stream
    for recording in source.data.recordings("test"):
        features = torch.from_numpy(source.data.features(recording, stream)[:LONGEST]).T.contiguous()
        seconds = features.shape[1] * spec.stride_s + spec.window_s
        item = unannotated(recording, features, seconds, spec.stride_s, spec.window_s, source.trained.classes)
        batch = collate([item])
        pairs = zip(source.trained.model(batch.features, batch.mask), again.model(batch.features, batch.mask))
        for ours, theirs in pairs:
            if ours.shape != theirs.shape:
                return float("inf")
            keep = torch.isfinite(ours) & torch.isfinite(theirs)  # masked logits are infinite in both
            squares += float(((ours.double() - theirs.double())[keep] ** 2).sum())
            whole += float((ours[keep].double() ** 2).sum())
    return (squares / whole) ** 0.5 if whole else 0.0


def bytes_below(out: str | Path) -> int:
    """Bytes of all model folders below a folder."""
    return sum(_sizes(Path(out)).values())


def _sizes(out):
    return {path: path.stat().st_size for path in out.glob("*/*/*") if path.name in FOLDER and path.is_file()}


def _check_size(out, made, dtype, most_bytes):
    """Raise `TalError` if all model folders together would be too large."""
    sizes = _sizes(out)
    sizes |= {folder / name: len(content) for folder, files, _ in made for name, content in files.items()}
    if (total := sum(sizes.values())) > most_bytes:
        smaller = " or --dtype float16" if dtype == "float32" else ""
        raise TalError(
            f"the model folders would need {total / 1e6:.2f} MB together, at most {most_bytes / 1e6:g} MB",
            where=out,
            remedy=f"Leave out models with --only or in the grid{smaller}.",
        )
