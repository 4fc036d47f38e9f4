"""How far a ranking on one benchmark tells about another: Kendall's τ of the models' means."""

import itertools

import pandas as pd

from tal_lib.data.registry import group_names
from tal_lib.evaluation.agreement import agreement
from tal_lib.reports.equal.arms import Scores, percent
from tal_lib.reports.equal.pairs import interval

COLUMNS = ["fraction", "first", "second", "models", "tau", "low", "high"]


def between_benchmarks(scores: dict[tuple[str, float], Scores]) -> pd.DataFrame:
    """Every pair of benchmarks at every label fraction that both have: `COLUMNS`.

    The interval is over people and folds. Pairs with fewer than three models in common are absent.
    """
    rows = []
    for fraction in sorted({fraction for _, fraction in scores}):
        here = {name: each.people for (name, at), each in scores.items() if at == fraction}
        for (first, ours), (second, theirs) in itertools.combinations(here.items(), 2):
            models = len(ours.columns.intersection(theirs.columns))
            if models > 2:
                rows.append((fraction, first, second, models, *agreement(ours, theirs)))
    return pd.DataFrame(rows, columns=COLUMNS)


def write(table: pd.DataFrame, tuned: set[str], out) -> None:
    """Write the correlations, as a tidy table and for readers. tuned: see `arms.tuned_benchmarks`."""
    if not len(table):
        return
    out.data(table, "between_benchmarks")
    pairs = list(dict.fromkeys(zip(table["first"], table["second"])))
    text = {
        (row.fraction, row.first, row.second): interval(row.tau, row.low, row.high, "+.2f")
        for row in table.itertuples()
    }
    shown = pd.DataFrame({"benchmarks": [f"{first} – {second}" for first, second in pairs]})
    for fraction in sorted(table.fraction.unique()):
        shown[percent(fraction)] = [text.get((fraction, *pair), "–") for pair in pairs]
    units = group_names(*table["first"], *table["second"])
    models = (
        f"{table.models.min()}"
        if table.models.nunique() == 1
        else (f"{table.models.min()}–{table.models.max()}")
    )
    plain = [name for name in dict.fromkeys([*table["first"], *table["second"]]) if name not in tuned]
    except_plain = f" ({', '.join(plain)}: plain)" if plain else ""
    caption = (
        f"Agreement between benchmarks by label fraction: Kendall's τ between the means of {models} models "
        f"with the equal recipe{except_plain}. 95 % intervals are over folds and {units}. "
        "1: same order; 0: no agreement."
    )
    out.table(shown, "between_benchmarks", caption)
