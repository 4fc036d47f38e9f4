"""The ranking of the equal arm in Markdown, for `README.md` and `RESULTS.md`.

`ranked` is the tidy table `equal_values` in all functions; it may be empty.
"""

import pandas as pd

from tal_lib.evaluation.nested import LEVEL
from tal_lib.reports.efficiency.runs import OUR_MODEL
from tal_lib.reports.equal.arms import MEAN, TUNED, percent
from tal_lib.reports.equal.sentences import listed, our_rank
from tal_lib.reports.escape import markdown

READERS = "results/readers/equal"


def ranking(ranked: pd.DataFrame) -> str:
    """The overview: the mean over the benchmarks at every label fraction, then each benchmark with the most
    labels. Until all tuned benchmarks are finished, every benchmark at every label fraction.
    """
    means, rows = _mean(ranked), _benchmarks(ranked)
    if len(means):
        rows = pd.concat([means, rows[rows.fraction == rows.groupby("benchmark").fraction.transform("max")]])
    return _table(rows)


def ranking_at(ranked: pd.DataFrame, fraction: str) -> str:
    """A label fraction: the mean over the benchmarks, then each benchmark."""
    rows = pd.concat([_mean(ranked), _benchmarks(ranked)])
    return _table(rows[rows.fraction == float(fraction)] if len(rows) else rows)


def _table(rows):
    """A row per model, a column per benchmark and label fraction; the best mean of a column is bold.

    A cell has the mean, the letters, and below them the interval. Models are sorted by their mean over the
    benchmarks with the most labels, until that is known by their mean over the columns; the floor is last.
    """
    if not len(rows):
        return "*The equal comparison was not run yet.*"
    first = _mean(rows) if len(_mean(rows)) else rows
    most = first[first.fraction == first.groupby("benchmark").fraction.transform("max")]
    order = most.assign(floor=most.place.isna()).groupby("model").agg({"floor": "max", "mean": "mean"})
    names = order.sort_values(["floor", "mean"], ascending=[True, False]).index
    table = pd.DataFrame({"model": [markdown(name) for name in names]})
    for (benchmark, fraction), group in rows.groupby(["benchmark", "fraction"], sort=False):
        means = group["mean"].map("{:.1f}".format)
        best = means[group["mean"].idxmax()]
        shown = means.where(means != best, "**" + means + "**") + " " + group.letters.fillna("")
        bounds = [f"<br>[{low:z.1f}, {high:z.1f}]" for low, high in zip(group.low, group.high)]
        cells = dict(zip(group.model, shown.str.strip() + bounds))
        table[f"{markdown(benchmark)}, {percent(fraction)}"] = [cells.get(name, "–") for name in names]
    return table.to_markdown(index=False, disable_numparse=True)


def finished(ranked: pd.DataFrame) -> str:
    """`2 of the 4 tuned benchmarks: a and b`, or `all 4 tuned benchmarks: …`."""
    names = [name for name in TUNED if (_benchmarks(ranked).benchmark == name).any()]
    which = f": {listed(names, 'and')}" if names else ""
    count = "all" if len(names) == len(TUNED) else f"{len(names)} of the"
    return f"{count} {len(TUNED)} tuned benchmarks{which}"


def our_model(ranked: pd.DataFrame) -> str:
    """The rank of this study's own model in the mean over the benchmarks, and its highest means."""
    rows = _benchmarks(ranked)
    rows = rows[rows.place.notna()] if len(rows) else rows
    columns = rows.groupby(["benchmark", "fraction"], sort=False) if len(rows) else ()
    first = [
        f"{name} ({percent(fraction)})"
        for (name, fraction), group in columns
        if group.model[group["mean"].idxmax()] == OUR_MODEL
    ]
    where = f"on {', '.join(first)}" if first else "on none of the tuned benchmarks"
    rank = our_rank(ranked) if len(ranked) else ""
    return f"{rank} It has the highest mean {where}.".strip()


def tuned(factorial: pd.DataFrame) -> str:
    """What tuning changed, and which changes can be told apart from none, in sentences.

    factorial: the tidy table of that name, a row per benchmark, label fraction and model.
    """
    factorial = factorial[factorial.benchmark != MEAN] if len(factorial) else factorial
    changed = factorial[factorial.difference != 0] if len(factorial) else factorial
    if not len(changed):
        return ""
    (up, down), (up_apart, down_apart) = map(_up_and_down, (changed, changed[changed.p_adjusted < LEVEL]))
    return (
        f"Tuning changed {len(changed)} of {len(factorial)} means: {up} rose and {down} fell. "
        f"Significant: {up_apart} of the rises and {down_apart} of the falls."
    )


def _up_and_down(rows):
    return int((rows.difference > 0).sum()), int((rows.difference < 0).sum())


def folds(ranked: pd.DataFrame) -> str:
    """Links to the tables of fold 0 against all folds."""
    names = dict.fromkeys(_benchmarks(ranked).benchmark)
    return ", ".join(_link(name, f"equal_folds_{name}") for name in names)


def more(ranked: pd.DataFrame) -> str:
    """A list with the links to the further tables: of each tuned benchmark, of their mean, of all others."""
    lines, others = [], []
    for benchmark, rows in ranked.groupby("benchmark", sort=False) if len(ranked) else ():
        if benchmark not in (*TUNED, MEAN):
            others.append(_link(f"`{benchmark}`", f"equal_{benchmark}"))
            continue
        links = [("ranking", "equal_{}"), ("plain and tuned", "factorial_{}")]
        links += [
            (f"pairs at {percent(fraction)}", f"equal_pairs_{{}}_{100 * fraction:g}")
            for fraction in sorted(rows.fraction.unique())
        ]
        if benchmark != MEAN:
            links += [
                ("fold 0 and all folds", "equal_folds_{}"),
                ("chosen settings", "tuning_{}"),
                ("all trials", "tuning_trials_{}"),
            ]
        shown = ", ".join(_link(text, name.format(benchmark)) for text, name in links)
        lines.append(f"- {'mean' if benchmark == MEAN else f'`{benchmark}`'}: {shown}.")
    if others:
        lines.append(f"- rankings on other benchmarks: {', '.join(others)}.")
    return "\n".join(lines)


def _link(text, name):
    return f"[{text}]({READERS}/{name}.md)"


def _benchmarks(ranked):
    """The tuned benchmarks, without their mean. Results without any of them have others: all of these."""
    if not len(ranked):
        return pd.DataFrame(columns=["benchmark"])
    rows = ranked[ranked.benchmark.isin(TUNED)]
    return rows if len(rows) else ranked[ranked.benchmark != MEAN]


def _mean(ranked):
    """The mean over the tuned benchmarks; empty until all of them are finished."""
    return ranked[ranked.benchmark == MEAN] if len(ranked) else pd.DataFrame(columns=["benchmark"])
