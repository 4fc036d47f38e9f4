"""The detections of a sweep's runs in one compressed file: anyone computes any metric without training.

A grid asks for it with `detections: 100` beside its name: the best 100 of each recording are kept. The file
is `results/detections/<sweep>.parquet`, one row a detection: `cell, model, fraction, fold, seed, subset_seed,
recording, start_cs, end_cs, label, score`. Times are whole hundredths of a second. `tal eval` reads it.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from tal_lib.evaluation import read_detections
from tal_lib.files import atomic_path
from tal_lib.sweeps.ledger import RESULT, finished_runs

WRITTEN = "detections.json"  # by 02_train_evaluate, in the run folder
ABOUT = ("model", "fraction", "fold", "seed", "subset_seed")  # parameters that tell the runs apart
COLUMNS = ("cell", *ABOUT, "recording", "start_cs", "end_cs", "label", "score")


def file_of(results: str | Path, sweep: str) -> Path:
    """Where a sweep's detections are kept."""
    return Path(results) / "detections" / f"{sweep}.parquet"


def collect(folder: Path, target: Path, cells: set[str], best: int) -> int:
    """Add the detections of finished runs to a sweep's file, and drop those of cells that are not its own.

    Args:
        folder: the sweep's run folders; target: the file.
        cells: ids of the sweep's cells of today; best: detections a recording that are kept.

    Returns:
        how many cells the file now has.
    """
    there = target.is_file()
    known = pd.read_parquet(target) if there else pd.DataFrame(columns=list(COLUMNS))
    written = target.stat().st_mtime_ns if there else 0
    have, again, parts = cells & set(known.cell), set(), []
    for name, record in sorted(finished_runs(folder).items()):
        path = folder / name / WRITTEN
        if name not in cells or not path.is_file() or not (folder / name / RESULT).is_file():
            continue
        if name not in have or path.stat().st_mtime_ns > written:  # new, or run again since
            again.add(name)
            parts.append(_rows(name, record["parameters"], read_detections(path), best))
    kept = known[known.cell.isin(have - again)]
    parts = [part for part in (kept, *parts) if len(part)]
    new = {name for part in parts for name in part.cell.unique()}
    if new == set(known.cell) and len(kept) == len(known):
        return len(new)
    table = pd.concat(parts or [known.iloc[:0]], ignore_index=True).sort_values(
        ["cell", "recording"], kind="stable"
    )  # pyright: ignore[reportCallIssue]
    for column in ("cell", "model", "recording", "label"):
        table[column] = table[column].astype(str).astype("category")
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target, state=True) as temporary:
        table.to_parquet(temporary, index=False, compression="zstd", compression_level=15)
    return len(new)


def _rows(cell, parameters, detections, best):
    """The best detections of each recording, in the file's form, best first."""
    ranked = detections.sort_values("score", ascending=False, kind="stable")
    ranked = ranked.groupby("recording", sort=False).head(best)
    about = {name: parameters.get(name, -1) for name in ABOUT}
    return pd.DataFrame(
        {"cell": cell}
        | about
        | {
            "recording": ranked.recording.to_numpy(),
            "start_cs": np.round(100 * ranked.start.to_numpy()).astype(np.int32),
            "end_cs": np.round(100 * ranked.end.to_numpy()).astype(np.int32),
            "label": ranked.label.to_numpy(),
            "score": ranked.score.to_numpy(dtype=np.float32),
        }
    )
