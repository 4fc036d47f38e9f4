"""`RESULTS.md`: the page that people cite, its text from a template, its figures from the tables."""

import re
from pathlib import Path

import pandas as pd

from tal_lib import __version__
from tal_lib.files import write_text
from tal_lib.reports import tables
from tal_lib.reports.advice import advice, headlines
from tal_lib.reports.costs import repeats

TEMPLATE = Path(__file__).with_name("RESULTS.template.md")


def write(results: str | Path, target: str | Path, benchmark: str = "hapt") -> Path:
    """Fill the template with what the tables hold. A table that is not there says so in its place."""
    results = Path(results)
    read = lambda name: (
        pd.read_csv(results / f"{name}.csv") if (results / f"{name}.csv").is_file() else pd.DataFrame()
    )

    def table(name):
        path = results / f"{name}.md"
        return path.read_text(encoding="utf-8").strip() if path.is_file() else f"*{name}: not measured yet.*"

    def mean(model, fraction):
        summary = read("data_efficiency_summary")
        rows = summary[
            (summary.benchmark == benchmark)
            & (summary.model == model)
            & (summary.fraction == float(fraction))
        ]
        return (
            tables.with_interval(rows)[0] + f", {rows.runs.iloc[0]} seeds"
            if len(rows)
            else "not measured yet"
        )

    def fill(match):
        what, *arguments = match[1].split(":")
        if what == "table":
            return table(*arguments)
        if what == "mean":
            return mean(*arguments)
        if what == "version":
            return __version__
        if what == "repeats":
            return " ".join(repeats(read("repeatability"))) or "How far they repeat was not measured yet."
        if what == "headlines":
            return "\n".join(f"- {line}" for line in headlines(read, benchmark)) or "Nothing measured yet."
        answers = advice(read, benchmark)
        return answers.to_markdown(index=False) if len(answers) else "Nothing measured yet."

    return write_text(target, re.sub(r"\{\{([^}]+)\}\}", fill, TEMPLATE.read_text(encoding="utf-8")))
