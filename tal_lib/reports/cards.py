"""Model cards and data cards: what a model or a benchmark is, what it is for, and its limits.

Everything is derived: from docstrings, the registries, `papers.py` and the results tables. Where a table is
missing, the card says less.
"""

import importlib
import inspect
import sys
from collections.abc import Sequence
from functools import cache

import pandas as pd

from tal_lib.cost.macs import count_macs
from tal_lib.data.registry import BENCHMARKS, VALIDATION
from tal_lib.data.subsets import PRIOR
from tal_lib.models import build
from tal_lib.models.parts import registry
from tal_lib.reports import citation, tables
from tal_lib.reports.efficiency.runs import FLOOR
from tal_lib.reports.layout import Layout
from tal_lib.reports.options import differences, options_of
from tal_lib.reports.papers import PAPERS, paper_of
from tal_lib.validation import unknown_name

SHAPE, STEPS = "hapt", 720  # the shape and length at which sizes are listed: six minutes of HAPT
OURS = "this study"
USES = {
    "one_stage": "Localize actions of known classes in one pass over a recording's features.",
    "set_prediction": "Localize actions of known classes with a fixed number of queries per slice.",
    "proposals": "Propose segments that may hold an action, then classify each.",
    "dense": "Label every step, then join equal neighbours. A simple baseline.",
    "language": "Localize actions by their names, also of classes that were not trained on.",
    registry.FLOOR: "Lower bound for every table. It reads no features; do not deploy it.",
}


def sizes(layout: Layout) -> dict[str, tuple[float, float]]:
    """Model → (parameters in millions, GMACs) at `SHAPE` and `STEPS`, compact; from the table of costs.

    What the table lacks, because the model has changed since, is counted here.
    """
    cost = tables.read_csv(layout.table("inference_cost"))
    if not len(cost):
        return {}
    rows = cost[(cost.benchmark == SHAPE) & (cost.preset == "compact") & (cost.length_steps == STEPS)]
    known = {row.model: (row.params / 1e6, row.macs / 1e9) for row in rows.itertuples()}
    for name in registry.names() if len(rows) else ():
        if name not in known and registry.class_of(name).__module__.startswith("tal_lib."):
            known[name] = counted(name, int(rows.input_dim.iloc[0]), int(rows.num_classes.iloc[0]))
    return known


@cache
def counted(name: str, input_dim: int, num_classes: int, steps: int = STEPS) -> tuple[float, float]:
    """(parameters in millions, GMACs) of a compact model as it is built today."""
    model = build(name, input_dim=input_dim, num_classes=num_classes)
    params = sum(parameter.numel() for parameter in model.parameters())
    return params / 1e6, count_macs(model, input_dim, steps)[0] / 1e9


def source_of(model: str) -> tuple[str, str, str]:
    """(authors in short, venue, year) of a model's paper; the study or the plug-in if there is none."""
    if model in PAPERS:
        paper = PAPERS[model]
        return f"{paper.first_author} et al.", paper.venue, str(paper.year)
    return (OURS if registry.class_of(model).__module__.startswith("tal_lib.") else "plug-in"), "–", "–"


def model_table(layout: Layout) -> pd.DataFrame:
    """One row per model: name, family, paper, venue, year, parameters, GMACs, and its module."""
    known, rows = sizes(layout), []
    for name in registry.every_name():
        paper, venue, year = source_of(name)
        params, macs = (f"{value:.2f}" for value in known[name]) if name in known else ("–", "–")
        rows.append(
            {
                "model": name,
                "family": registry.family(name).replace("_", " "),
                "paper": paper,
                "venue": venue,
                "year": year,
                "params (M)": params,
                "GMACs": macs,
                "from": registry.origin(name),
            }
        )
    return pd.DataFrame(rows)


def citations_of(names: Sequence[str]) -> list[str]:
    """BibTeX entries: this study's, then the papers of models and benchmarks that have one. Each once."""
    papers = filter(None, map(paper_of, names))
    return list(dict.fromkeys([citation.bibtex(), *(paper.bibtex() for paper in papers)]))


def model_card(name: str, layout: Layout, *, cited: bool = True) -> str:
    """The card of a model, in Markdown.

    Args:
        cited: end with the paper's BibTeX entry.

    Raises:
        TalError: no such model.
    """
    cls, family = registry.class_of(name), registry.family(name)
    paper = PAPERS.get(name)
    facts = [
        f"Family: {family.replace('_', ' ')}.",
        f"Paper: {paper.authors}. {paper.title}. {paper.venue} {paper.year}. <{paper.link}>"
        if paper
        else f"Paper: none; from {source_of(name)[0]}.",
        f"Presets: {', '.join(registry.presets(name))}. Options: `tal models {name}`.",
    ]
    if name in (known := sizes(layout)):
        facts.append(
            f"Size (compact, {STEPS} steps of {SHAPE}): {known[name][0]:.2f} M parameters, "
            f"{known[name][1]:.2f} GMACs per recording."
        )
    limits = [
        "It reads features, not video: accuracy depends on the feature extractor.",
        "Scores rank detections. They are not calibrated probabilities.",
    ]
    if cls.separate_classifier:
        limits.append("It only proposes. The classes come from this study's classifier.")
    if cls.not_exportable:
        limits.append(f"It cannot be exported: {cls.not_exportable}.")
    if paper:
        limits.append("Differences from the authors' code: docs/fidelity.md.")
    trained = _trained_on(name, layout)
    return _card(
        name,
        about_of(sys.modules.get(cls.__module__)),
        {
            "Facts": facts,
            "Intended use": [USES.get(family, "As its author states.")],
            "Training data": [
                f"Trained and tested in this study on {trained}."
                if trained
                else "This study has no results of this model.",
                _weights(name, layout),
            ],
            "Limits": limits,
        },
        paper.bibtex() if paper and cited else "",
    )


def _weights(model, layout):
    folders = sorted(f"{path.parent.name}/{model}" for path in layout.models.glob(f"*/{model}/"))
    if folders:
        used = ", ".join(f"`tal detect FILE --model {folder}`" for folder in folders)
        return f"Trained weights in results/models: {used}. Others are random until `tal train`."
    return "Weights are random until `tal train`. It trains only on the recordings that you name."


def _trained_on(model, layout):
    """The benchmarks on which a model has results, with the number of runs."""
    rows = tables.read_csv(layout.table("data_efficiency"))
    if not len(rows):
        return ""
    runs = rows[rows.model == model].groupby("benchmark", sort=True).cell.nunique()
    parts = [
        f"{benchmark} ({count} {'run' if count == 1 else 'runs'})"
        for benchmark, count in runs.items()
        if not benchmark.endswith(VALIDATION)
    ]
    tuned = runs[runs.index.str.endswith(VALIDATION)].sum()
    return ", ".join(parts) + (
        f"; {tuned} runs on validation parts of their training recordings" if tuned else ""
    )


def data_card(name: str, layout: Layout) -> str:
    """The card of a benchmark, in Markdown.

    Raises:
        TalError: no such benchmark.
    """
    if name not in BENCHMARKS:
        raise unknown_name(name, BENCHMARKS, name="benchmark")
    benchmark = BENCHMARKS[name]
    facts = [f"Origin: {benchmark.origin}.", f"Licence: {benchmark.licence}."]
    if benchmark.counts:
        facts.insert(0, "{:,} recordings, {:,} classes, {:,} annotated segments.".format(*benchmark.counts))
    limits = []
    measured = tables.read_csv(layout.table("benchmarks"))
    for row in measured[measured.benchmark == name].itertuples() if len(measured) else []:
        people = f"{row.people:.0f} people, " if row.people == row.people else ""
        facts.insert(1, f"{people}{row.hours:.2f} hours, {row.folds} cross-validation folds.")
        limits.append(
            f"{100 * row.same_sequence:.0f} % of the recordings have the most frequent sequence of labels. "
            f"A detector that reads no features reaches {100 * row.floor:.1f} avg mAP on the official split "
            f"(fold 0 if it has none){_floor_over_folds(name, layout)}."
        )
        if row.empty_recordings:
            limits.append(f"{row.empty_recordings} recordings have no annotated segment.")
    limits.append(
        "Results hold for these recordings and features. Other people or sensors were not tested."
        if name in _tested(layout)
        else "This study has no result on it."
    )
    return _card(
        name,
        f"{benchmark.about[:1].upper()}{benchmark.about[1:]}.\n\n{_about_benchmark(name)}".rstrip(),
        {
            "Facts": facts,
            "Intended use": [
                "Compare models of temporal action localization, with all labels and with few.",
                f"Load it: `tal data check {name}`; `load_benchmark({name!r})` in Python.",
            ],
            "Limits": limits,
        },
    )


def _tested(layout):
    """The benchmarks of which this study has results."""
    rows = tables.read_csv(layout.table("data_efficiency"))
    return set(rows.benchmark) if len(rows) else set()


def _floor_over_folds(benchmark, layout):
    """The floor over five folds with all labels, in words; empty if the equal comparison lacks it."""
    rows = tables.read_csv(layout.table("equal_values"))
    if not len(rows):
        return ""
    rows = rows[(rows.benchmark == benchmark) & (rows.fraction == 1) & (rows.model == FLOOR)]
    return (
        f", and {rows['mean'].iloc[0]:.1f} as the mean over {rows.folds.iloc[0]:.0f} folds"
        if len(rows)
        else ""
    )


def _about_benchmark(name):
    """The docstring of a benchmark's module; empty if the module reads many data sets and names none."""
    module = module_of(name)
    text = about_of(module)
    return text if module.__name__.endswith(f".{name}") or f"`{name}`" in text else ""


def module_of(benchmark):
    """The module that reads a benchmark: the one with its name, else that of its loader."""
    short = benchmark.removesuffix(PRIOR).removesuffix(VALIDATION)
    try:
        return importlib.import_module(f"tal_lib.data.{short}")
    except ImportError:
        load = BENCHMARKS[benchmark].load
        return inspect.getmodule(getattr(load, "func", load))


def about_of(module) -> str:
    """The docstring of a module; empty if there is none."""
    return inspect.cleandoc(module.__doc__) if module is not None and module.__doc__ else ""


def _card(name, about, sections, references=""):
    parts = [f"# {name}", *([about] if about else [])]
    parts += [
        f"## {title}\n\n" + "\n".join(f"- {line}" for line in lines) for title, lines in sections.items()
    ]
    if references:
        parts.append(f"## Citation\n\n```bibtex\n{references}\n```")
    return "\n\n".join(parts)


def model_page(name: str, width: int = 100) -> str:
    """Paper, presets and options of a model, as text for a terminal.

    Raises:
        TalError: no such model.
    """
    import textwrap

    options = options_of(name)
    paper = PAPERS.get(name)
    lines = [f"{name}: {registry.family(name).replace('_', ' ')}"]
    if paper:
        lines += [f"{paper.title}", f"{paper.authors}. {paper.venue} {paper.year}", paper.link]
    else:
        lines.append(f"no paper; from {source_of(name)[0]}")
    lines += ["", "presets (--preset), and where they differ from compact"]
    for preset in registry.presets(name):
        changed = ", ".join(f"{key}={value}" for key, value in differences(options, preset).items())
        lines += textwrap.wrap(
            f"  {preset}: {changed or ('the default' if preset == 'compact' else 'no difference')}",
            width,
            subsequent_indent="    ",
            break_long_words=False,
        )
    for group in dict.fromkeys(option.group for option in options):
        lines += ["", f"options of {group} (--set NAME=VALUE), with the default of compact"]
        for option in options:
            if option.group == group:
                choices = f" One of {', '.join(option.choices)}." if option.choices else ""
                text = f"  {option.name}={option.default}  {option.meaning}{'.' * bool(choices)}{choices}"
                lines += textwrap.wrap(text, width, subsequent_indent="      ", break_long_words=False)
    return "\n".join(lines)
