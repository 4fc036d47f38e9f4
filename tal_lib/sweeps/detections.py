"""The detections of a sweep's runs in compressed files: anyone computes any metric without training.

A grid asks for it with `detections: 100` beside its name: the best 100 of each recording are kept. There is
one file per benchmark, `results/detections/<sweep>/<benchmark>.parquet`, one row per detection: `cell,
benchmark, model, fraction, fold, seed, subset_seed, recording, start_cs, end_cs, label, score`. Times are
whole hundredths of a second. `tal eval` reads a file; `pandas.read_parquet` reads a file, or the folder as
one table. A run that was tested on several benchmarks (`also`) is in the file of each, under the same cell.

A file also records how many detections of a recording each cell keeps. If the grid's number is raised, cells
are read again from their run folders. A cell without its run folder keeps the old number; `kept_less` names
these cells. Cells whose model detected nothing at all have no row; the file names them (`without_any`).

Two sweeps may share a cell, which one of them has run. Both then have its detections: they are copied.
"""

import json
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd

from tal_lib.evaluation import read_detections
from tal_lib.files import atomic_path
from tal_lib.sweeps.ledger import RESULT, finished_runs, locked, recency

WRITTEN = "detections.json"  # by 02_train_evaluate, in the run folder
WRITTEN_TOO = "detections_{}.json"  # on another benchmark
ABOUT = ("benchmark", "model", "fraction", "fold", "seed", "subset_seed")  # what tells the runs apart
KEPT = "kept"  # entry of a file's metadata: JSON, cell → detections of a recording that it keeps
EMPTY = "without_any"  # entry of a file's metadata: JSON, the cells without any detection and their `ABOUT`
COLUMNS = ("cell", *ABOUT, "recording", "start_cs", "end_cs", "label", "score")


def file_of(results: str | Path, sweep: str, benchmark: str | None = None) -> Path:
    """Where a sweep's detections on a benchmark are kept; without a benchmark, the folder of all."""
    folder = Path(results) / "detections" / sweep
    return folder if benchmark is None else folder / f"{benchmark}.parquet"


def collect(
    folder: Path, target: Path, cells: set[str], best: int, known: dict[str, dict] | None = None
) -> int:
    """Add the detections of finished runs to a sweep's files, and drop those of cells that are not its own.

    Args:
        folder: the sweep's run folders; target: the folder of its files.
        cells: ids of the sweep's results that count; best: detections per recording that are kept.
        known: the records of the sweep's ledger, by id. A run that is older than its record is left out.

    Returns:
        how many cells the files now have.
    """
    runs: dict[str, dict[str, tuple[Path, dict]]] = {}  # benchmark -> cell -> file and parameters
    for name, record in sorted(finished_runs(folder).items()):
        is_older = known is not None and name in known and recency(record) < recency(known[name])
        if name in cells and not is_older and (folder / name / RESULT).is_file():
            for benchmark, path in _written(folder / name, record["parameters"]).items():
                runs.setdefault(benchmark, {})[name] = path, record["parameters"] | {"benchmark": benchmark}
    have: set[str] = set()
    benchmarks = sorted({path.stem for path in target.parent.glob("*/*.parquet")} | set(runs))
    with locked(target) if benchmarks else nullcontext():
        for benchmark in benchmarks:
            have |= _update(target / f"{benchmark}.parquet", runs.get(benchmark, {}), cells, best)
    return len(have)


def _written(run, parameters):
    """Benchmark → file of its detections, of those that a run has written."""
    files = {parameters.get("benchmark") or "all": run / WRITTEN}
    files |= {name: run / WRITTEN_TOO.format(name) for name in parameters.get("also") or ()}
    return {name: path for name, path in files.items() if path.is_file()}


def _update(target, runs, cells, best):
    """Write the file of one benchmark, if it changes. Returns the ids of its cells."""
    there = target.is_file()
    known = pd.read_parquet(target) if there else pd.DataFrame(columns=list(COLUMNS))
    written = target.stat().st_mtime_ns if there else 0
    numbers = _numbers(known)
    have, again, parts = {cell for cell in cells if numbers.get(cell, 0) >= best}, set(), []
    empty = {row["cell"]: row for row in without_any(known) if row["cell"] in cells}
    for rows, nothing in _shared(target, cells - have - set(runs), best):
        again |= set(rows.cell.unique()) | set(nothing)
        parts.append(rows)
        empty |= nothing
    for name, (path, parameters) in runs.items():
        if name not in have or path.stat().st_mtime_ns > written:  # new, run again since, or fewer kept
            again.add(name)
            rows = _rows(name, parameters, read_detections(path), best)
            parts.append(rows)
            empty.pop(name, None)
            if not len(rows):
                empty[name] = {"cell": name, **_about(parameters)}
    kept = known[known.cell.isin(cells - again)]
    parts = [part for part in (kept, *parts) if len(part)]
    new = {name for part in parts for name in part.cell.unique()} | set(empty)
    if not again and (not there or len(kept) == len(known)):
        return new
    table = pd.concat(parts or [known.iloc[:0]], ignore_index=True).sort_values(
        ["cell", "recording"], kind="stable"
    )  # pyright: ignore[reportCallIssue]
    for column in ("cell", "benchmark", "model", "recording", "label"):
        table[column] = table[column].astype(str).astype("category")
    numbers = {name: number for name, number in numbers.items() if name in cells}
    table.attrs[KEPT] = json.dumps(numbers | dict.fromkeys(again, best), sort_keys=True)
    table.attrs[EMPTY] = json.dumps([empty[name] for name in sorted(empty)], sort_keys=True)
    with atomic_path(target, state=True) as temporary:
        table.to_parquet(temporary, index=False, compression="zstd", compression_level=15)
    return new


def _shared(target, wanted, best):
    """The detections of cells that other sweeps keep on the same benchmark: their rows, and cell → entry of
    `EMPTY` of those without any. A cell that they keep fewer of than `best` is left out."""
    for path in sorted(target.parent.parent.glob(f"*/{target.name}")) if wanted else ():
        if path == target:
            continue
        table = pd.read_parquet(path)
        here = {cell for cell, number in _numbers(table).items() if cell in wanted and number >= best}
        wanted = wanted - here
        rows = table[table.cell.isin(here)]
        nothing = {row["cell"]: row for row in without_any(table) if row["cell"] in here}
        if len(rows) or nothing:
            yield rows.groupby(["cell", "recording"], observed=True, sort=False).head(best), nothing


def without_any(known: pd.DataFrame) -> list[dict]:
    """The runs of a file whose model detected nothing: `cell, benchmark, model, fraction, fold, seed,
    subset_seed` of each. known: the file as `pandas.read_parquet` reads it."""
    return json.loads(known.attrs.get(EMPTY, "[]"))


def _about(parameters):
    return {name: parameters.get(name, -1) for name in ABOUT}


def _numbers(known):
    """Cell → detections of a recording that a file keeps of it.

    A file that does not record it has one number for all: that of its recording with the most detections.
    """
    if KEPT in known.attrs:
        return json.loads(known.attrs[KEPT])
    most = known.groupby(["cell", "recording"], observed=True).size().max() if len(known) else 0
    return dict.fromkeys(known.cell.unique(), int(most))


def kept_less(folder: Path, target: Path, cells: Iterable[str], best: int) -> dict[str, int]:
    """Finished cells that keep fewer detections of a recording than `best`, though `collect` has run.

    Args:
        folder: the sweep's run folders; target: the folder of its files.
        cells: ids of finished cells that write detections; best: the grid's number.

    Returns:
        cell → how many it keeps, on the benchmark with the fewest; 0: none. Cells whose run folder still has
            all detections are left out.
    """
    numbers: dict[str, int] = {}
    for path in target.glob("*.parquet"):
        for cell, number in _numbers(pd.read_parquet(path)).items():
            numbers[cell] = min(number, numbers.get(cell, number))
    less = {cell: numbers.get(cell, 0) for cell in cells if numbers.get(cell, 0) < best}
    return {cell: number for cell, number in less.items() if not (folder / cell / WRITTEN).is_file()}


def kept_lines(less: Iterable[int], best: int) -> list[str]:
    """What to tell about the numbers of `kept_less`."""
    kept = lambda number: f"the best {number}" if number else "no"
    return [
        f"{count} finished cells keep {kept(number)} detections of each recording, the grid asks for {best}; "
        "`--again` runs them"
        for number, count in sorted(Counter(less).items())
    ]


def _rows(cell, parameters, detections, best):
    """The best detections of each recording, in the file's form, best first."""
    ranked = detections.sort_values("score", ascending=False, kind="stable")
    ranked = ranked.groupby("recording", sort=False).head(best)
    return pd.DataFrame(
        {"cell": cell}
        | _about(parameters)
        | {
            "recording": ranked.recording.to_numpy(),
            "start_cs": np.round(100 * ranked.start.to_numpy()).astype(np.int32),
            "end_cs": np.round(100 * ranked.end.to_numpy()).astype(np.int32),
            "label": ranked.label.to_numpy(),
            "score": ranked.score.to_numpy(dtype=np.float32),
        }
    )
