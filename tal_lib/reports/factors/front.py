"""Which model's curve is on top at a given cost, and the target of this study's own model.

Both are read from the sweep `size` (`reports.factors.size`). A curve joins a model's three sizes, linearly in
the logarithm of the cost. A smaller size is affordable too, so a curve never falls.
"""

import numpy as np
import pandas as pd

from tal_lib.evaluation.nested import LEVEL, holm, nested_estimate, paired_estimate
from tal_lib.reports import tables
from tal_lib.reports.efficiency.runs import OUR_MODEL
from tal_lib.reports.equal.arms import PLAIN, percent
from tal_lib.reports.equal.pairs import interval, tested
from tal_lib.reports.equal.sentences import listed
from tal_lib.reports.factors import size
from tal_lib.reports.factors.runs import PERSON, people_of_sweep, signed_range

POINTS = 400  # costs at which the curves are compared, evenly spaced on a log scale
FRONT = [*size.GROUP, "cost", "model", "from_cost", "to_cost"]
TARGET = [*size.GROUP, "model", "size", "macs", "latency_s", "own_macs", "own_latency_s"]
TARGET += ["mean", "own_mean", "difference", "low", "high", "p", "p_adjusted"]
SHOWN = {"macs": ("MACs", "GMACs", 1e-9), "latency_s": ("latency", "ms", 1e3)}  # words, unit, factor


def fronts(table: pd.DataFrame) -> pd.DataFrame:
    """The model with the highest curve at each cost, as ranges of the cost: `FRONT`.

    table: of `size.scores`. `cost` is `macs` or `latency_s`; the unit is that of the column.
    """
    rows = []
    for key, group in table.groupby(size.GROUP, sort=False):
        for cost in SHOWN:
            known = group.dropna(subset=[cost])
            if known.model.nunique() > 1:
                rows += [(*key, cost, *part) for part in _front(known, cost)]
    return pd.DataFrame(rows, columns=FRONT)


def _front(rows, cost):
    """(model, from, to) along the costs."""
    cheapest = rows.groupby("model")[cost].min()
    costs = np.geomspace(cheapest.max(), rows[cost].max(), POINTS)  # where every model has a curve
    curves = {}
    for model, line in rows.groupby("model"):
        line = line.sort_values(cost)
        heights = np.maximum.accumulate(line["mean"].to_numpy())
        curves[model] = np.interp(np.log(costs), np.log(line[cost]), heights)
    on_top = pd.DataFrame(curves).idxmax(axis=1)
    begins = [0, *np.flatnonzero(on_top.to_numpy()[1:] != on_top.to_numpy()[:-1]) + 1, POINTS]
    return [
        (on_top[begin], float(costs[begin]), float(costs[end - 1]))
        for begin, end in zip(begins, begins[1:], strict=False)
    ]


def for_readers(table: pd.DataFrame, growth: pd.DataFrame, front: pd.DataFrame) -> pd.DataFrame:
    """What size buys, a row per benchmark and label fraction: gain of the largest size, the highest mean of
    each size, and the fronts.

    Args:
        table, growth: of `size.scores`.
        front: of `fronts`.
    """
    rows = []
    for (benchmark, fraction), some in table.groupby(size.GROUP, sort=False):
        at = lambda frame: frame[(frame.benchmark == benchmark) & (frame.fraction == fraction)]  # noqa: B023
        gains, on_top = at(growth), at(front)
        told = (gains.p_adjusted < LEVEL).sum()
        row = {"benchmark": benchmark, "label fraction": percent(fraction)}
        row["largest − smallest"] = f"{signed_range(gains.difference)} ({told} of {len(gains)})"
        for name, group in some.groupby("size", sort=False):
            best = group.loc[group["mean"].idxmax()]
            row[name] = f"{best.model} {best['mean']:.1f}"
        for cost, (words, _, _) in SHOWN.items():
            stretches = _ranges(on_top[on_top.cost == cost], cost)
            row[f"highest curve by {words}"] = ", then ".join(stretches) or "–"
        rows.append(row)
    return pd.DataFrame(rows)


def _ranges(rows, cost):
    """`a`, `b from 0.5 GMACs` of the models along a front."""
    _, unit, factor = SHOWN[cost]
    if not len(rows):
        return []
    first, *others = rows.itertuples()
    return [first.model, *(f"{row.model} (from {factor * row.from_cost:.2g} {unit})" for row in others)]


def target(data: dict[str, pd.DataFrame], table: pd.DataFrame) -> pd.DataFrame:
    """This study's own model in its compact size against every size of another model that costs at most as
    much: at most its MACs and its latency on one thread. `TARGET`.

    Both have the plain recipe. `difference` is ours minus the other's, paired by person. p-values are
    Holm-adjusted over the rows of a benchmark and label fraction.

    Args:
        data: the tidy tables.
        table: of `size.scores`.
    """
    costs = {}
    for name in ("inference_cost", "inference_cost_options"):  # of hapt; of the other benchmarks
        costs |= _own_costs(data.get(name, pd.DataFrame()))
    ours = people_of_sweep(data, PLAIN)
    ours = ours[(ours.model == OUR_MODEL) & (ours.options == "")]
    others = people_of_sweep(data, size.SWEEP)
    rows = []
    for key, here in table[table.model != OUR_MODEL].groupby(size.GROUP, sort=False):
        if key[0] not in costs:
            continue
        macs, latency = costs[key[0]]
        of_us = _people(ours, key)
        here = here[(here.macs <= macs) & (here.latency_s <= latency)]
        known = []
        for row in here.itertuples():
            of_them = _people(others, key, model=row.model)
            of_them = of_them[of_them.options.map(size.width_of) == row.width]
            if len(of_us) and len(of_them):
                known.append((row, paired_estimate(of_us, of_them)))
        adjusted = holm([each.p for _, each in known])
        for (row, each), p in zip(known, adjusted, strict=True):
            about = (row.model, row.size, row.macs, row.latency_s, macs, latency)
            means = row.mean, nested_estimate(of_us).mean
            rows.append((*key, *about, *means, each.mean, each.low, each.high, each.p, p))
    return pd.DataFrame(rows, columns=TARGET)


def _people(people, key, **wanted):
    """The rows of one setting, with the columns that pair them."""
    for name, value in (dict(zip(size.GROUP, key, strict=True)) | wanted).items():
        people = people[people[name] == value]
    return people[["options", *PERSON, "value"]]


def _own_costs(cost):
    """Benchmark → MACs and latency (s) of our compact model on one CPU thread, at `size.STEPS`."""
    rows = size.measured(cost)
    if not len(rows):
        return {}
    rows = tables.as_preset(rows[rows.model == OUR_MODEL])
    medians = rows.groupby("benchmark")[["macs", "latency_s_median"]].median().dropna()
    return {name: (row.macs, row.latency_s_median) for name, row in medians.iterrows()}


def target_sentence(table: pd.DataFrame) -> str:
    """Whether the target is met, in words; empty without rows. table: of `target`."""
    if not len(table):
        return ""
    settings = dict.fromkeys(f"{row.model} ({row.size})" for row in table.itertuples())
    texts = []
    for (model, name, benchmark), rows in table.groupby(["model", "size", "benchmark"], sort=False):
        gaps = [
            f"{interval(row.difference, row.low, row.high)} with {percent(row.fraction)}"
            for row in rows.itertuples()
        ]
        texts.append(f"Against {model} ({name}) on {benchmark}: {listed(gaps, 'and')}.")
    met = "met" if ((table.low > 0) & (table.p_adjusted < LEVEL)).all() else "not met"
    return (
        f"In the comparison of sizes, {listed(settings, 'and')} cost{'s' * (len(settings) == 1)} at most as "
        f"much in both. Differences of {OUR_MODEL} are in points, with the plain recipe. {' '.join(texts)} "
        f"The target is {met}."
    )


def write(data: dict[str, pd.DataFrame], table: pd.DataFrame, growth: pd.DataFrame, out) -> None:
    """Write the sizes, the fronts and the comparison at equal cost. table, growth: of `size.scores`."""
    if not len(table):
        return
    front = fronts(table)
    size.write(table, growth, front, out)
    out.data(front, "size_front")
    caption = (
        "Size of a model, plain recipe, avg mAP (%). Gains: the largest size minus the smallest, by model "
        "(how many are significant, Holm). Means: the highest of each size. Highest curve: not tested, and "
        "only from the cost on at which every model has a curve; cheaper points may be better there."
    )
    out.table(for_readers(table, growth, front), "size_summary", caption)
    rows = target(data, table)
    if not len(rows):
        return
    out.data(rows, "size_target")
    shown = pd.DataFrame(
        {
            "benchmark": rows.benchmark,
            "label fraction": list(map(percent, rows.fraction)),
            "other model": rows.model + ", " + rows["size"],
            "GMACs": (rows.macs / 1e9).map("{:.2f}".format),
            "latency (ms)": (1e3 * rows.latency_s).map("{:.1f}".format),
            "other, avg mAP": rows["mean"].round(1),
            f"{OUR_MODEL}, avg mAP": rows.own_mean.round(1),
            **tested(rows),
        }
    )
    ours = [
        f"{row.own_macs / 1e9:.2f} GMACs and {1e3 * row.own_latency_s:.1f} ms on {row.benchmark}"
        for row in rows.drop_duplicates("benchmark").itertuples()
    ]
    caption = (
        f"{OUR_MODEL} (compact: {listed(ours, 'and')}) against every size of another model that costs at "
        f"most as much in both, at {size.STEPS} steps; plain recipe. Difference: ours minus the other, "
        "paired by person or recording, with 95 % interval (not adjusted)."
    )
    out.table(shown, "size_target", caption)
