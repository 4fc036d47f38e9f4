"""Compares our models with their authors' code and prints the table.

    python experiments/fidelity.py --code FOLDER [--models tridet …] [--aspects forward …] [--out FILE.csv]
    python experiments/fidelity.py --summary    # of the last complete run: the table of docs/fidelity.md

FOLDER holds the user's own clones of the authors' repositories, each under the name that `--help` lists. Both
models are built, every weight is perturbed and copied, and each comparison prints a row: parameters, MACs,
raw outputs, loss, gradient, detections, recipe, time. The exit code is 1 if a difference is above its limit.
"""

import argparse
import importlib
import pkgutil
import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import authors
from tal_lib.errors import TalError
from tal_lib.reports.layout import Layout

COMMITTED = Layout().experiments / "fidelity.csv"


def repositories() -> dict[str, object]:
    """Our model's name -> the module that compares it."""
    names = [info.name for info in pkgutil.iter_modules(authors.__path__)]
    modules = [importlib.import_module(f"experiments.authors.{name}") for name in names]
    return {model: module for module in modules if hasattr(module, "MODELS") for model in module.MODELS}


def compare(
    code: Path, names: list[str], aspects: list[str], done=None
) -> tuple[pd.DataFrame, dict[str, str]]:
    """The rows of the models that could be built, and why each other one could not.

    Args:
        done: called with the table so far, after each row.
    """
    modules, rows, missing = repositories(), [], {}
    for name in names:
        module = modules[name]
        try:
            for row in module.rows(code / module.FOLDER, name):
                if row.aspect in aspects:
                    rows.append(asdict(row))
                    if done:
                        done(_table(rows))
        except TalError as error:
            missing[name] = str(error)
    return _table(rows), missing


def _table(rows):
    table = pd.DataFrame(rows, columns=list(authors.Row.__dataclass_fields__))
    table["passes"] = table["limit"].isna() | (table["difference"] <= table["limit"])
    return table


def summary(table: pd.DataFrame) -> str:
    """Model × aspect as Markdown: comparisons, and the largest difference in percent of its limit."""
    shown = pd.DataFrame(
        {
            aspect: table[table.aspect == aspect].groupby("model").apply(_cell, include_groups=False)
            for aspect in authors.ASPECTS
            if aspect != "time"
        }
    )
    return (
        shown.fillna("–").rename_axis("model").reset_index().to_markdown(index=False, disable_numparse=True)
    )


def _cell(rows):
    checked, stated = rows[rows.limit.notna()], int(rows.limit.isna().sum())
    parts = [f"{stated} stated"] if stated else []
    if len(checked):
        share = (checked.difference / checked.limit).where(checked.difference > 0, 0.0).max()
        parts.insert(0, f"{len(checked)}: {'equal' if share == 0 else f'{100 * share:.2g} %'}")
    return ", ".join(parts)


def main() -> int:
    """The command; returns the exit code."""
    modules = repositories()
    folders = "; ".join(
        f"{each.FOLDER}: {', '.join(each.MODELS)}" for each in dict.fromkeys(modules.values())
    )
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--code", type=Path, help=f"folder with the clones ({folders})")
    parser.add_argument("--summary", action="store_true", help="print the table of docs/fidelity.md")
    parser.add_argument("--models", nargs="+", default=list(modules), choices=list(modules))
    parser.add_argument("--aspects", nargs="+", default=list(authors.ASPECTS), choices=authors.ASPECTS)
    parser.add_argument("--out", type=Path, help="also write the table to this CSV file, row by row")
    arguments = parser.parse_args()
    if arguments.summary:
        print(summary(pd.read_csv(COMMITTED)))
        return 0
    if arguments.code is None:
        parser.error("--code FOLDER is missing: the folder with the authors' clones")
    write = (lambda table: table.to_csv(arguments.out, index=False)) if arguments.out else None
    table, missing = compare(arguments.code, arguments.models, arguments.aspects, write)
    with pd.option_context("display.max_rows", None, "display.width", 200, "display.max_colwidth", 60):
        print(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    for name, reason in missing.items():
        print(f"{name}: not compared: {reason}")
    return int(not table["passes"].all())


if __name__ == "__main__":
    sys.exit(main())
