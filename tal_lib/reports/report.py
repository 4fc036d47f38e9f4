"""`tal report`: rebuild every table, figure and rendered notebook from the ledger.

A file is rewritten only if its content changes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from tal_lib.errors import TalError
from tal_lib.files import REPOSITORY
from tal_lib.reports import (
    diagnosis,
    efficiency,
    equal,
    factors,
    folds,
    frame_skip,
    official,
    provenance,
    results_page,
    tables,
    validation_runs,
    variants,
)
from tal_lib.reports.costs import (
    accuracy,
    checks,
    deployment,
    end_to_end,
    inference,
    precision,
    quantization,
    training,
)
from tal_lib.reports.costs.present import as_built_today
from tal_lib.reports.factors.size import COST_SWEEP
from tal_lib.reports.layout import Layout
from tal_lib.reports.output import Output
from tal_lib.reports.rendered import render_notebooks
from tal_lib.sweeps.ledger import finished_runs, ledgers, only_newer, read_all, recency, update_ledger
from tal_lib.writing import claim


@dataclass(frozen=True)
class Section:
    """One part of a report. It is written if the tidy tables that it needs have rows."""

    topic: str  # folder of its tables for readers and figures
    needs: tuple[str, ...]
    write: Callable[[dict[str, pd.DataFrame], Output], None]


SECTIONS = (
    Section("accuracy", ("data_efficiency",), efficiency.write),
    Section("accuracy", ("subset_recordings",), variants.write_subsets),
    Section("accuracy", ("proposals",), variants.write_proposals),
    Section("open_set", ("open_set",), variants.write_open_set),
    Section("streams", ("streams",), partial(variants.write_variants, "streams")),
    Section("streams", ("distillation",), partial(variants.write_variants, "distillation")),
    Section("streams", ("ablation",), partial(variants.write_variants, "ablation")),
    Section("diagnosis", ("diagnosis",), diagnosis.write),
    Section("diagnosis", ("class_ap",), diagnosis.write_classes),
    Section("cost", ("inference_cost",), inference.write),
    Section("cost", ("device_check",), checks.write),
    Section("cost", ("end_to_end",), end_to_end.write),
    Section("cost", ("end_to_end_live",), end_to_end.write_live),
    Section("training", ("training_step", "training_milestones", "training_curve"), training.write),
    Section("quantization", ("quantization",), quantization.write),
    Section("export", ("export",), deployment.write_export),
    Section("length", ("inference_length",), deployment.write_windows),
)


@dataclass(frozen=True)
class Report:
    """The files of a report, written or unchanged."""

    tables: list[Path]
    figures: list[Path]
    notebooks: list[Path]
    origin: provenance.Origin  # counts of cells from uncommitted and from older code

    @property
    def topics(self) -> list[str]:
        """The folders of `readers/` that have tables of this report."""
        return list(
            dict.fromkeys(
                path.parent.name
                for path in self.tables
                if path.suffix == ".md" and path.parent.parent.name == "readers"
            )
        )


def report(
    results: str | Path = "results",
    figures_dir: str | Path = "figures",
    runs: str | Path = "runs",
    render: bool = True,
) -> Report:
    """Write the results tables (CSV, Parquet, Markdown, LaTeX), the figures (PNG) and the rendered notebooks.

    Run folders that are not yet in the ledger are added to it first.
    """
    layout, runs = Layout(results, figures_dir), Path(runs)
    for folder in (layout.results, Path(figures_dir)):
        claim(folder)
    records = _records(layout, runs)
    out = Output(layout)
    data = tidy_tables(records)
    for name, table in data.items():
        out.data(table, name)
    stale = provenance.stale_cells(layout)
    origin = provenance.write(data, stale, out)
    data = provenance.mark_older(data, stale)
    split = {name: folds.on_official_split(table) for name, table in data.items()}
    for section in SECTIONS:
        if all(len(split.get(name, ())) for name in section.needs):
            section.write(split, out.about(section.topic))
    folds.write(data, out.about("accuracy"))
    official.write(data, out.about("accuracy"))
    frame_skip.write(data, out.about("accuracy"))
    validation_runs.write(data, out.about("accuracy"))
    precision.write(data, out.about("training"))
    ranked = equal.write(data, out.about("equal"))
    if all(len(split.get(name, ())) for name in ("data_efficiency", "inference_cost")):
        accuracy.write(split, ranked, out.about("cost"))
    factors.write(data, out.about("factors"))
    if layout.results.resolve() == REPOSITORY / "results":
        out.tables.append(results_page.write(layout, REPOSITORY / "RESULTS.md"))
        out.tables.append(results_page.write(layout, REPOSITORY / "README.md", results_page.README))
    rendered = render_notebooks(layout, runs, records) if render else []
    return Report(out.tables, out.figures, rendered, origin)


def _records(layout, runs):
    """All current records, including those of the run folders. A record that any ledger has stays there."""
    folders = sorted(runs.glob("*")) if runs.is_dir() else []
    known = {record["id"]: recency(record) for record in ledgers(layout.results)} if folders else {}
    for folder in folders:
        ledger = layout.ledger / f"{folder.name}.jsonl"
        new = only_newer(finished_runs(folder, ledger), known)
        update_ledger(ledger, new)
        known |= {id: recency(record) for id, record in new.items()}
    records = read_all(layout.results)
    if not records:
        raise TalError(
            "no finished cell in any ledger",
            where=layout.ledger,
            remedy="Name the --results folder of a sweep, or run one: `tal sweep notebooks/sweeps/quick.yaml"
            f"{'' if layout.results == Path('results') else f' --results {layout.results}'}`.",
        )
    return records


def tidy_tables(records: list[dict]) -> dict[str, pd.DataFrame]:
    """Name → tidy table, for all tables in the cells' records that have rows."""
    names = sorted({name for record in records for name, rows in record["tables"].items() if rows})
    data = {name: tables.measured_columns(tables.tidy(records, name)) for name in names}
    if "inference_cost" in data:
        cost = tables.of_the_present_network(as_built_today(data.pop("inference_cost")))
        cost = tables.newest(tables.with_counted_macs(cost))
        # in that sweep, one model as its preset is measured beside those with options
        main = cost.index.isin(tables.as_preset(cost[cost.sweep != COST_SWEEP]).index)
        for name, rows in (("inference_cost", cost[main]), ("inference_cost_options", cost[~main])):
            data |= {name: rows.reset_index(drop=True)} if len(rows) else {}
    if "machines" in data:  # every run describes its machine
        data["machines"] = tables.newest(data["machines"], ("device_name",)).drop(
            columns=tables.KEYS, errors="ignore"
        )
    return data
