"""Accuracy against the size of a model: six one-stage models at three widths, the sweep `size`.

The widths are chosen so that the MACs of the models at each size are within 10 % of each other on a recording
of hapt. MACs and latency on every benchmark's shape are measured beside it (`size_cost`).
"""

import itertools
import re

import pandas as pd

from tal_lib.data.registry import group_name, group_names
from tal_lib.evaluation.nested import LEVEL, groups, holm, nested_estimate, paired_estimate
from tal_lib.reports import figures, tables
from tal_lib.reports.equal.arms import percent, place
from tal_lib.reports.equal.pairs import tested
from tal_lib.reports.equal.sentences import leaders, listed
from tal_lib.reports.factors.runs import people_of_sweep

SWEEP, COST_SWEEP = "size", "size_cost"
SIZES = ("small", "medium", "large")
STEPS = 576  # of the recording whose cost is shown: a crop of the recipe
DEFAULT = "default"  # embedding
COSTS = ["macs", "params", "latency_s"]
GROUP = ["benchmark", "fraction"]
SCORES = [*GROUP, "model", "size", "width", "embedding", *COSTS, "folds", "mean", "low", "high", "letters"]
GROWTH = [*GROUP, "model", "small", "large", "difference", "low", "high", "p", "p_adjusted"]


def scores(data: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every model at every size (`SCORES`), and what the largest gains over the smallest (`GROWTH`).

    `embedding`: options other than the widths, which only some models change with their size. Only models
    that have all sizes on a benchmark at a label fraction count. Models of one size that
    share a letter cannot be told apart (Holm over the pairs of all sizes). `macs, params, latency_s`
    (median, one CPU thread) are of `STEPS` steps of the benchmark's shape; NaN where they were not
    measured. The gains are paired by person; p-values are Holm-adjusted over the models of a benchmark
    and label fraction. `attrs["machine"]` of the first table: on what the costs were measured, for captions.
    """
    people = people_of_sweep(data, SWEEP)
    people = people.assign(width=people.options.map(width_of))
    rank = people.groupby([*GROUP, "model"]).width.rank("dense").astype(int) - 1
    complete = people.groupby([*GROUP, "model"]).width.transform("nunique") == len(SIZES)
    people = people[complete].assign(size=[SIZES[each] for each in rank[complete]])
    costs = _costs(data.get("inference_cost_options", pd.DataFrame()))
    rows, growth = [], []
    by_place = lambda key: (place(key[0]), *key)
    parts = dict(list(people.groupby(GROUP)))
    for key in sorted(parts, key=by_place):
        settings = {name: part for name, part in parts[key].groupby(["size", "model"])}
        models = sorted({model for _, model in settings})
        adjusted = _adjusted(settings, models)
        for size in SIZES:
            known = {model: nested_estimate(settings[size, model]) for model in models}
            means = {model: each.mean for model, each in known.items()}
            letters = groups(means, adjusted[size])
            for model in sorted(models, key=lambda name: -means[name]):
                width, options = settings[size, model][["width", "options"]].iloc[0]
                values = known[model].folds, known[model].mean, known[model].low, known[model].high
                costed = costs.get((key[0], model, width), (float("nan"),) * len(COSTS))
                rows.append(
                    (*key, model, size, width, _without_widths(options), *costed, *values, letters[model])
                )
        gains = {
            model: paired_estimate(settings[SIZES[-1], model], settings[SIZES[0], model]) for model in models
        }
        of_gains = holm([each.p for each in gains.values()])
        for (model, each), p in zip(gains.items(), of_gains, strict=True):
            ends = [nested_estimate(settings[size, model]).mean for size in (SIZES[0], SIZES[-1])]
            growth.append((*key, model, *ends, each.mean, each.low, each.high, each.p, p))
    table = pd.DataFrame(rows, columns=SCORES)
    machines = measured(data.get("inference_cost_options", pd.DataFrame()))
    table.attrs["machine"] = f", {machines.device_name.iloc[0]}" if len(machines) else ""
    return table, pd.DataFrame(growth, columns=GROWTH)


def _adjusted(settings, models):
    """Size → pair of models → p-value of their difference, Holm-adjusted over all pairs of all sizes."""
    keys = [(size, pair) for size in SIZES for pair in itertools.combinations(models, 2)]
    of = lambda size, pair: paired_estimate(*(settings[size, model] for model in pair)).p
    adjusted = dict(zip(keys, holm([of(*key) for key in keys]), strict=True))
    return {size: {pair: p for (at, pair), p in adjusted.items() if at == size} for size in SIZES}


def width_of(options: str) -> int:
    """The width in the text of a run's options; 0 if it has none."""
    match = re.search(r"(?<!\w)width=(\d+)", options)
    return int(match[1]) if match else 0


def _without_widths(options):
    """`embedding_kernel=1` of `embedding_kernel=1, head_width=64, width=64`."""
    return ", ".join(part for part in options.split(", ") if "width=" not in part) or DEFAULT


def measured(table: pd.DataFrame) -> pd.DataFrame:
    """The costs of compact models in float32 at `STEPS`, on one CPU thread of the main machine.

    table: `inference_cost` or `inference_cost_options`; it may be empty.
    """
    if not {"benchmark", "length_steps", "device", "threads_used", "precision", "preset"} <= set(table):
        return table.iloc[:0]
    rows = table[(table.length_steps == STEPS) & (table.device == "cpu") & (table.threads_used == 1)]
    return tables.on_main_machine(rows[(rows.precision == "float32") & (rows.preset == "compact")])


def _costs(table):
    """(benchmark, model, width) → `COSTS` of the newest measurement on one CPU thread."""
    rows = measured(table)
    if not len(rows) or "options" not in rows:
        return {}
    names = tables.with_shown_names(rows[["model", "preset"]]).model
    rows = rows.assign(
        model=names, width=rows.options.fillna("").map(width_of), latency_s=rows.latency_s_median
    ).sort_values("utc", kind="stable")
    keys = ["benchmark", "model", "width"]
    newest = rows.drop_duplicates(keys, keep="last").set_index(keys)
    return {key: tuple(row) for key, row in zip(newest.index, newest[COSTS].itertuples(index=False))}


def sentence(growth: pd.DataFrame, table: pd.DataFrame) -> str:
    """What size buys and whether models of equal size differ, in words; empty without tables."""
    if not len(growth):
        return ""
    gains, lower = [], []
    for (benchmark, fraction), rows in growth.groupby(GROUP, sort=False):
        if told := (rows.p_adjusted < LEVEL).sum():
            gains.append(f"{told} of {len(rows)} models on {benchmark} with {percent(fraction)}")
    for (benchmark, fraction, size), some in table.groupby([*GROUP, "size"], sort=False):
        some = some.sort_values("mean", ascending=False)
        if names := list(some[~some.model.isin(leaders(some).model)].model):
            below = f"{some.model.iloc[0]} differs from {listed(names, 'and')}"
            lower.append(f"{size} on {benchmark} with {percent(fraction)}, {below}")
    differ = "; ".join(lower) or "no model differs significantly from the highest mean"
    parts = [
        _times(table),
        f"It gains significantly for {listed(gains, 'and') if gains else 'no model'}.",
        f"At equal size{':' if lower else ','} {differ}.",
        _unequal(table),
    ]
    return " ".join(part for part in parts if part)


def _times(table):
    """How many times the MACs of the smallest size the largest has; empty if unknown."""
    macs = table.pivot_table(index=["benchmark", "model"], columns="size", values="macs", dropna=False)
    times = (macs[SIZES[-1]] / macs[SIZES[0]]).dropna()
    if times.empty:
        return ""
    ends = dict.fromkeys(f"{end:.0f}" for end in (times.min(), times.max()))
    return f"The largest size has {' to '.join(ends)} times the MACs of the smallest."


def _unequal(table):
    """How far the MACs of the models of one size differ, on each benchmark; empty if none are known."""
    macs = table.dropna(subset=["macs"]).groupby(["benchmark", "size"]).macs
    apart = (macs.max() / macs.min() - 1).groupby("benchmark", sort=False).max()
    texts = [f"up to {100 * share:.0f} % on {benchmark}" for benchmark, share in apart.items()]
    return f"The MACs of one size differ by {listed(texts, 'and')}." if texts else ""


def _also_changed(rows):
    """The models whose embedding differs between the smallest and the largest size; empty if none does."""
    ends = rows[rows["size"].isin((SIZES[0], SIZES[-1]))].groupby("model").embedding.nunique()
    names = sorted(ends.index[ends > 1])
    return f" The embedding changes too in {listed(names, 'and')}." if names else ""


def write(table: pd.DataFrame, growth: pd.DataFrame, front: pd.DataFrame, out) -> None:
    """Write both tables, tidy and for readers, and the figures, which show the front (`front.fronts`)."""
    if not len(table):
        return
    machine = table.attrs.get("machine", "")
    out.data(table, "size")
    out.data(growth, "size_growth")
    for benchmark, rows in table.groupby("benchmark", sort=False):
        unit = group_name(benchmark)
        caption = (
            f"Size of a model on {benchmark}: avg mAP (%), plain recipe, mean over folds with 95 % interval "
            f"over folds and {group_names(benchmark)}. Models of one size and label fraction that share a "
            "letter cannot be told apart (Holm). "
            f"Costs: a recording of {STEPS} steps, one CPU thread{machine}."
        )
        out.table(_for_readers(rows), f"size_{benchmark}", caption)
        here = growth[growth.benchmark == benchmark]
        shown = pd.DataFrame(
            {
                "label fraction": list(map(percent, here.fraction)),
                "model": here.model,
                "small": here.small.round(1),
                "large": here.large.round(1),
                **tested(here),
            }
        )
        caption = (
            f"What the largest size gains over the smallest on {benchmark}: points of avg mAP, paired by "
            f"{unit}, with 95 % interval. p-values: Holm over the models of a label fraction."
            f"{_also_changed(table[table.benchmark == benchmark])}"
        )
        out.table(
            shown, f"size_growth_{benchmark}", caption, tables.Best(high=("small", "large"), by_row=True)
        )
    for cost, label in (("macs", "MACs"), ("latency_s", "latency")):
        known = table[table[cost].notna()]
        if len(known):
            caption = (
                f"avg mAP against {label} of {known.model.nunique()} one-stage models at three "
                f"widths, by benchmark and label fraction; plain recipe{machine * (cost != 'macs')}."
            )
            out.figure(figures.size_curves(known, cost, front)[0], f"size_{cost}", caption)


def _for_readers(rows):
    """A row per label fraction, size and model."""
    shown = pd.DataFrame(
        {
            "label fraction": list(map(percent, rows.fraction)),
            "size": rows["size"],
            "model": rows.model,
            "width": rows.width,
            **({"embedding": rows.embedding} if (rows.embedding != DEFAULT).any() else {}),
            "GMACs": (rows.macs / 1e9).map("{:.2f}".format),
            "parameters (M)": (rows.params / 1e6).map("{:.2f}".format),
            "latency (ms)": (1e3 * rows.latency_s).map("{:.1f}".format),
            "avg mAP": [
                f"{score} {letters}"
                for score, letters in zip(tables.with_interval(rows), rows.letters, strict=True)
            ],
        }
    )
    return shown.replace("nan", "–")
