"""Trained weights for what is measured on them: of a finished run where there is one, else trained now."""

from pathlib import Path

from tal_lib.files import REPOSITORY
from tal_lib.sweeps.identity import about_data, current_code
from tal_lib.sweeps.ledger import finished_runs

HERE = "trained here"


def trained_in(runs: str | Path, **parameters) -> Path | None:
    """The checkpoint of the newest finished run, of any sweep below a folder, that trained with these
    parameters; None if there is none.

    Runs on other data or by other code than today's are passed over.
    """
    checkpoints = []
    for folder in sorted(Path(runs).glob("*")) if Path(runs).is_dir() else []:
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
    """Whether the same data and code would make the same weights; of a run from before versions were kept,
    the data alone tells.
    """
    parameters, notebook = record["parameters"], REPOSITORY / "notebooks" / record["notebook"]
    benchmark = parameters.get("benchmark")
    if benchmark and about_data(benchmark)[0] != record["provenance"]["data_hash"]:
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
) -> tuple[Path, str]:
    """A checkpoint of a model trained on a share of a benchmark's training recordings, and whose it is: a
    cell's id, or `HERE`.

    Args:
        recipe: fields that differ from the model's own recipe; folder: where it is written if it has to be
            trained.
    """
    from tal_lib.data import load_benchmark
    from tal_lib.study import train_and_score

    about = {
        "benchmark": benchmark,
        "model": model,
        "preset": preset,
        "fraction": fraction,
        "seed": seed,
        "recipe": recipe,
    }
    if found := trained_in(runs, **about, stream="", options={}, subset_seed=-1):
        return found, found.parent.name
    run = train_and_score(
        load_benchmark(benchmark),
        model,
        preset=preset,
        recipe=recipe,
        fraction=fraction,
        seed=seed,
        out_dir=folder,
        device="cpu",
    )
    return run.result.checkpoint, HERE
