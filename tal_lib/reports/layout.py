"""Where every result lies: the one place that knows the folders of `results/` and `figures/`.

results/ledger/           one line a finished cell (written by sweeps, read here)
results/tables/           tidy data for code: CSV, and Parquet for the one large table
results/readers/<topic>/  tables for people: Markdown, LaTeX, and the same cells as CSV
results/experiments/      what the scripts of `experiments/` measured; `tal report` never writes them
results/notebooks/        rendered notebooks
results/subsets/          the recordings of every subset sample
results/prior/            figures that others published
results/models/           trained models, one folder per benchmark and model (`tal collect`)
figures/<topic>/          one picture a figure (PNG); `NAME@dark.png` is its dark form, if a page needs one
"""

import re
from dataclasses import dataclass
from pathlib import Path

from tal_lib.errors import TalError
from tal_lib.files import REPOSITORY, in_checkout, study_root, upwards
from tal_lib.validation import did_you_mean

TOPICS = (
    "equal",
    "factors",
    "accuracy",
    "diagnosis",
    "cost",
    "length",
    "training",
    "quantization",
    "export",
    "open_set",
    "streams",
    "prior",
)
DARK = "@dark"  # at the end of a dark form's name; no other name has the mark
SHORT_NAME = re.compile(r"[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w-]*")  # of a trained model: benchmark/model
PARQUET = ("class_ap",)  # one row per cell, class and tIoU; CSV would be 40 times as large


@dataclass(frozen=True)
class Layout:
    """The folders of one study. It creates and reads nothing."""

    results: Path = REPOSITORY / "results"
    figures: Path = REPOSITORY / "figures"

    def __post_init__(self):
        object.__setattr__(self, "results", Path(self.results))
        object.__setattr__(self, "figures", Path(self.figures))

    @property
    def ledger(self) -> Path:
        return self.results / "ledger"

    @property
    def tables(self) -> Path:
        return self.results / "tables"

    @property
    def readers(self) -> Path:
        return self.results / "readers"

    @property
    def experiments(self) -> Path:
        return self.results / "experiments"

    @property
    def notebooks(self) -> Path:
        return self.results / "notebooks"

    @property
    def subsets(self) -> Path:
        return self.results / "subsets"

    @property
    def models(self) -> Path:
        return self.results / "models"

    @property
    def prior(self) -> Path:
        return study_root() / "results" / "prior"

    def table(self, name: str) -> Path:
        """The path of a tidy table."""
        return self.tables / f"{file_stem(name)}.{'parquet' if name in PARQUET else 'csv'}"

    def reader(self, topic: str, name: str) -> Path:
        """The path of a Markdown table for readers. Its LaTeX and CSV files are in the same folder."""
        return self.readers / _known(topic) / f"{file_stem(name)}.md"

    def figure(self, topic: str, name: str) -> Path:
        """The path of a figure."""
        return self.figures / _known(topic) / f"{file_stem(name)}.png"

    def dark_figure(self, topic: str, name: str) -> Path:
        """The path of a figure's dark form, beside it. No name of a figure can hold `@`."""
        return self.figure(topic, name).with_name(f"{file_stem(name)}{DARK}.png")

    def reader_tables(self, pattern: str = "*") -> list[Path]:
        """The Markdown files of all tables for readers whose name matches a pattern, sorted by name."""
        return sorted(self.readers.glob(f"*/{pattern}.md"), key=lambda path: path.stem)

    def all_figures(self, pattern: str = "*") -> list[Path]:
        """All figures whose name matches a pattern, sorted by topic and name; without the dark forms."""
        order = lambda path: (TOPICS.index(path.parent.name), path.stem)
        shown = (path for path in self.figures.glob(f"*/{pattern}.png") if not path.stem.endswith(DARK))
        return sorted((path for path in shown if path.parent.name in TOPICS), key=order)


def nearest(results: str | Path = "results") -> Layout:
    """The layout of a results folder with tables, which may lie in a folder above (see `files.upwards`)."""
    return Layout(upwards(results, holds="tables"))


def trained_models() -> list[str]:
    """`BENCHMARK/MODEL` of the folders in `results/models/`; none where there are no results."""
    folders = nearest().models.glob("*/*")
    return sorted(f"{folder.parent.name}/{folder.name}" for folder in folders if folder.is_dir())


def model_place(given: str | Path) -> Path:
    """The path of a model: the given one, or the folder in `results/models/` that `BENCHMARK/MODEL` names.

    Raises:
        TalError: there is no such path and no such model.
    """
    path, text = Path(given), str(given)
    if path.exists() or not SHORT_NAME.fullmatch(text):
        return path  # what reads it says what is wrong with it
    models = nearest().models
    if (models / text).is_dir():
        return models / text
    known = trained_models()
    if known:
        remedy = f"Give a path, or one of {', '.join(known)}.{did_you_mean(text, known)}"
    elif in_checkout():
        remedy = "Give a path, or make the trained models: `tal sweep released_models`, `tal collect`."
    else:
        remedy = (
            "Trained models are in the repository, not in the installed package: clone it, and give "
            f"--model CLONE/results/models/{text}."
        )
    raise TalError("no such path, and no trained model of this name", where=text, remedy=remedy)


def _known(topic):
    if topic not in TOPICS:
        raise ValueError(f"unknown topic {topic!r}; topics: {', '.join(TOPICS)}")
    return topic


def file_stem(name: str) -> str:
    """A name as a part of a file name that is valid on every system.

    Letters, digits, `_`, `-`, `+` and inner dots stay. Other characters become `_`. A user's benchmark name
    is part of the file names of tables and figures; the file cannot be outside their folder.
    """
    return re.sub(r"[^\w.+-]", "_", name).lstrip(".-")[:150] or "_"
