"""Trained weights for measurements: from a finished run if there is one, otherwise trained now."""

from pathlib import Path

from tal_lib.files import REPOSITORY, remove_at_exit, upwards
from tal_lib.sweeps.identity import current_code, data_of
from tal_lib.sweeps.ledger import finished_runs

HERE = "trained here"


def trained_in(runs: str | Path, **parameters) -> Path | None:
    """Checkpoint of the newest finished run with these parameters, from any sweep below a folder, or None.

    Runs on other data or by other code than today's are skipped.
    """
    checkpoints = []
    for folder in sorted(upwards(runs).glob("*")) if upwards(runs).is_dir() else []:
        for name, record in finished_runs(folder).items():
            checkpoint = folder / name / "model.pt"
            if (
                parameters.items() <= record["parameters"].items()
                and checkpoint.is_file()
                and _of_today(record)
            ):
                checkpoints.append((record["provenance"]["utc"], checkpoint))
    return max(checkpoints)[1] if checkpoints else None


def _of_today(record):
    """Whether the current data and code would make the same weights.

    Older runs have no version of the code. For these, only the data is compared.
    """
    parameters, notebook = record["parameters"], REPOSITORY / "notebooks" / record["notebook"]
    if data_of(parameters) not in ("", record["provenance"]["data_hash"]):
        return False
    return (
        "code" not in record
        or not notebook.is_file()
        or current_code().of(notebook, parameters) == record["code"]
    )


def checkpoint_of(
    benchmark: str,
    model: str,
    preset: str,
    seed: int,
    recipe: dict,
    folder: str | Path,
    runs: str | Path = "runs",
    *,
    fraction: float = 1.0,
    fold: int = -1,
) -> tuple[Path, str]:
    """Checkpoint of a model trained on a fraction of a benchmark's training recordings, and its origin.

    The origin is the id of the cell that trained it, or `HERE`.

    Args:
        recipe: fields that differ from the model's default recipe.
        folder: where the checkpoint is written if the model must be trained. A new temporary folder of a
            notebook (`mkdtemp` with a prefix like `tal-export-`) is removed when the process ends.
        runs: folder of the run folders; it may lie in a folder above (see `files.upwards`).
        fraction: label fraction.
        fold: cross-validation fold; −1: the official split.
    """
    from tal_lib.data import load_benchmark
    from tal_lib.study import train_and_score

    remove_at_exit(folder)
    about = {
        "benchmark": benchmark,
        "model": model,
        "preset": preset,
        "fraction": fraction,
        "fold": fold,
        "seed": seed,
        "recipe": recipe,
    }
    whole = {"stream": "", "options": {}, "subset_seed": -1, "skip": 1, "people": 1.0, "annotated": 1.0}
    if checkpoint := trained_in(runs, **about, **whole):
        return checkpoint, checkpoint.parent.name
    run = train_and_score(
        load_benchmark(benchmark, fold=fold),
        model,
        preset=preset,
        recipe=recipe,
        fraction=fraction,
        seed=seed,
        out_dir=folder,
        device="cpu",
    )
    return run.result.checkpoint, HERE  # pyright: ignore[reportReturnType]
