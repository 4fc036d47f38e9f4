"""`tal report`: rebuild every table, figure and rendered notebook from the ledger."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from tal_lib.errors import TalError
from tal_lib.files import REPOSITORY, atomic_path, study_folder, write_text
from tal_lib.process.background import in_background
from tal_lib.reports import costs, diagnosis, figures, pages, results_page, tables, theme
from tal_lib.reports import efficiency as study
from tal_lib.sweeps.ledger import finished_runs, read_all, update_ledger
from tal_lib.writing import claim

# rendered for readers, of the cells that ran: the one with the most data and the study's own model
SHOWN = (
    "01_data.ipynb",
    "02_train_evaluate.ipynb",
    "03_inference_cost.ipynb",
    "03_inference_length.ipynb",
    "04_open_set.ipynb",
    "05_streams_and_distillation.ipynb",
    "06_training_cost.ipynb",
    "07_quantization.ipynb",
    "08_export.ipynb",
    "09_diagnosis.ipynb",
)


LARGEST = "class_ap"  # a row a cell, class and tIoU


@dataclass(frozen=True)
class Report:
    """What was written."""

    tables: list[Path]
    figures: list[Path]
    notebooks: list[Path]


def report(
    results: str | Path = "results",
    figures_dir: str | Path = "figures",
    runs: str | Path = "runs",
    render: bool = True,
) -> Report:
    """Write the results tables (CSV, Markdown, LaTeX), the figures (PNG, SVG) and the rendered notebooks.

    Run folders that are not in the ledger yet are taken into it first.
    """
    results, figures_dir, runs = Path(results), Path(figures_dir), Path(runs)
    for folder in (results, figures_dir):
        claim(folder)
    for folder in sorted(runs.glob("*")) if runs.is_dir() else []:
        ledger = results / "ledger" / f"{folder.name}.jsonl"
        update_ledger(ledger, finished_runs(folder, ledger))
    records = read_all(results)
    if not records:
        raise TalError(
            "no finished cell in any ledger",
            where=results / "ledger",
            remedy="Run a sweep first: `tal sweep notebooks/sweeps/quick.yaml`.",
        )
    names = sorted({name for record in records for name in record["tables"]})
    # where the largest table is long it is made beside the others, and what is drawn from it is left out
    long = sum(len(record["tables"].get(LARGEST, ())) for record in records) >= tables.LONG
    write_largest = lambda: tables.write_csv(tables.tidy(records, LARGEST), results, LARGEST)
    written = [results / f"{LARGEST}.csv"] if long else []
    wait = in_background(write_largest) if long else lambda: None
    data = {name: tables.tidy(records, name) for name in names if not (long and name == LARGEST)}
    if "inference_cost" in data:
        data["inference_cost"] = tables.newest(data["inference_cost"])
    if "machines" in data:  # a machine is described by every run on it
        data["machines"] = tables.newest(data["machines"], ("device_name",)).drop(
            columns=tables.KEYS, errors="ignore"
        )
    written += [tables.write_csv(table, results, name) for name, table in data.items()]
    drawn: list[Path] = []
    draw = lambda axes, name: _draw(axes, figures_dir, name, drawn)
    efficiency, cost = data.get("data_efficiency", pd.DataFrame()), data.get("inference_cost", pd.DataFrame())
    if len(efficiency):
        written += study.write(efficiency, results, draw)
    if len(subsets := data.get("subset_recordings", pd.DataFrame())):
        written += _subsets(subsets, results)
    if len(proposals := data.get("proposals", pd.DataFrame())):
        written += _proposals(study.main_arm(proposals), results, figures_dir, drawn)
    if len(open_set := data.get("open_set", pd.DataFrame())):
        written += _open_set(open_set, results, figures_dir, drawn)
    for name in ("streams", "distillation", "ablation"):
        if name in data:
            written += _variants(name, data[name], results, figures_dir, drawn)
    if len(errors := data.get("diagnosis", pd.DataFrame())):
        written += diagnosis.write(errors, results, draw)
    if len(classes := data.get(LARGEST, pd.DataFrame())):
        written += diagnosis.write_classes(study.main_arm(classes), results, draw)
    written += costs.write(data, results, draw)
    if len(efficiency) and len(cost):
        _accuracy_and_cost(study.main_arm(efficiency), cost, figures_dir, drawn)
    wait()
    if results.resolve() == REPOSITORY / "results":
        written.append(results_page.write(results, REPOSITORY / "RESULTS.md"))
    rendered = _notebooks(results, runs, records) if render else []
    return Report(written, drawn, rendered)


def _draw(axes, folder, name, drawn):
    drawn.append(theme.save(axes.figure, folder, name))
    plt.close(axes.figure)


def _subsets(subsets, results):
    """The recordings of every draw and share, an id a line, under the names that the files of a study's subsets go by."""
    return [
        write_text(
            results / "subsets" / f"{benchmark}_{100 * fraction:g}_seed{seed}.txt",
            "\n".join(sorted(rows.recording)) + "\n",
        )
        for (benchmark, fraction, seed), rows in subsets.groupby(["benchmark", "fraction", "subset_seed"])
    ]


def _proposals(proposals, results, folder, drawn):
    summary = tables.proposal_summary(proposals)
    written = []
    for benchmark, rows in summary.groupby("benchmark", sort=False):
        most = rows[rows.fraction == rows.fraction.max()]
        caption = (
            f"Average recall (%) of class-agnostic proposals on {benchmark} over tIoU 0.5–0.95, at AN proposals a recording, and "
            f"its area up to 100; {100 * most.fraction.max():g} % of the training recordings, mean over seeds."
        )
        written.append(
            tables.write_table(
                tables.proposal_table(summary, benchmark), results, f"proposals_{benchmark}", caption
            )
        )
        _draw(figures.average_recall(most), folder, f"average_recall_{benchmark}", drawn)
    return written


def _open_set(open_set, results, folder, drawn):
    summary = tables.open_set_summary(open_set)
    written = [tables.write_csv(summary, results, "open_set_summary")]
    for benchmark, rows in summary.groupby("benchmark", sort=False):
        caption = (
            f"Open-set localization on {benchmark}: avg mAP (%) of classes known by name alone, mean over splits of the classes "
            f"with 95 % bootstrap interval; learned from {rows.keep.iloc[0]} without unseen classes."
        )
        written.append(
            tables.write_table(
                tables.open_set_table(summary, benchmark), results, f"open_set_{benchmark}", caption
            )
        )
        _draw(
            figures.open_set(rows[rows.fraction == rows.fraction.max()]),
            folder,
            f"open_set_{benchmark}",
            drawn,
        )
    return written


CAPTIONS = {
    "streams": "each stream alone, both joined before the network (early), and scores of one model a stream averaged (late)",
    "distillation": "a teacher, and its student trained alone and taught by it; GMACs at 720 steps",
    "ablation": "the model without some of its parts; GMACs at 720 steps",
}


def _variants(name, table, results, folder, drawn):
    summary = tables.variant_summary(table)
    written = [tables.write_csv(summary, results, f"{name}_summary")]
    for benchmark, rows in summary.groupby("benchmark", sort=False):
        for fraction, mine in rows.groupby("fraction", sort=False):
            caption = (
                f"avg mAP (%) on {benchmark} with {100 * fraction:g} % of the training recordings: {CAPTIONS[name]}. Mean over "
                "seeds with 95 % bootstrap interval."
            )
            shape = tables.streams_table if name == "streams" else tables.variants_table
            stem = f"{name}_{benchmark}_{100 * fraction:g}"
            written.append(tables.write_table(shape(mine, benchmark), results, stem, caption))
            _draw(figures.variants(mine), folder, stem, drawn)
    return written


def _accuracy_and_cost(efficiency, cost, folder, drawn):
    """mAP at the largest fraction against each cost at the length nearest to 720 steps (six minutes of HAPT), compact models on a CPU."""
    summary = tables.efficiency_summary(efficiency)
    cost = tables.on_main_machine(cost[cost.device == "cpu"])
    for benchmark, rows in summary.groupby("benchmark", sort=False):
        rows = rows[rows.fraction == rows.fraction.max()]
        mine = cost[
            (cost.benchmark == benchmark) & (cost.preset == "compact") & (cost.precision == "float32")
        ]
        mine = mine.dropna(subset=["latency_s_median"])
        if mine.empty:
            continue
        length = min(mine.length_steps.unique(), key=lambda steps: abs(steps - 720))
        mine = mine[(mine.length_steps == length) & (mine.threads_used == mine.threads_used.min())]
        columns = [*costs.COSTS, "latency_s_p10", "latency_s_p90"]
        both = rows.merge(
            tables.with_shown_names(mine).groupby("model")[columns].median().reset_index(), on="model"
        )
        if len(both) < 2:
            continue
        for value, (name, label, unit) in costs.COSTS.items():
            spread = (
                {"cost_low": both.latency_s_p10 / unit, "cost_high": both.latency_s_p90 / unit}
                if name == "latency"
                else {}
            )
            _draw(
                figures.accuracy_against_cost(
                    both.assign(**{value: both[value] / unit}, **spread), value, f"{label}, {length:,} steps"
                ),
                folder,
                f"accuracy_{name}_{benchmark}",
                drawn,
            )


def _notebooks(results, runs, records):
    target = results / "notebooks"
    pages_of = {}
    for record in records:
        if (
            record["notebook"] in SHOWN
            and (runs / record["sweep"] / record["id"] / "notebook.ipynb").is_file()
        ):
            about = [record["parameters"].get(name, "") for name in ("study", "benchmark", "shape_of")]
            pages_of.setdefault("_".join([Path(record["notebook"]).stem, *filter(None, about)]), []).append(
                record
            )
    for stem, mine in sorted(pages_of.items()):
        best = max(mine, key=lambda record: _worth_showing(record["parameters"], record["provenance"]["utc"]))
        with atomic_path(target / f"{stem}.ipynb") as temporary:
            shutil.copyfile(runs / best["sweep"] / best["id"] / "notebook.ipynb", temporary)
            pages.clean(temporary)
    pages.execute(
        study_folder() / "00_findings.ipynb",
        target / "00_findings.ipynb",
        {"results": str(results.resolve())},
    )
    return [pages.render(path, path.with_suffix(".html")) for path in sorted(target.glob("*.ipynb"))]


def _worth_showing(parameters, utc):
    """Of the runs of one notebook: the model's own options and recipe, the most models, lengths and data, the study's own model, true
    names, one thread, the first split and seed, the newest."""
    given = parameters.get
    plain = not given("options") and given("subset_seed", -1) < 0
    count = [len(given(name, ())) for name in ("model_names", "lengths")]
    return (
        plain,
        not given("recipe"),
        *count,
        given("fraction", 0),
        given("model") in ("local_global", "stale"),
        not given("misnamed"),
        given("seen", 0),
        given("threads") == [1],
        -given("split", 0),
        -given("seed", 0),
        given("model") == "local_global",
        utc,
    )
