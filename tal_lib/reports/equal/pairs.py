"""Every pair of models: difference paired by person or recording, Holm-adjusted p-value, probability of
improvement."""

import pandas as pd

from tal_lib.data.registry import group_name
from tal_lib.evaluation.nested import Estimate, chance_above_zero, estimate, holm, mean_of
from tal_lib.reports.equal.arms import MEAN, TUNED, Scores, percent

COLUMNS = [
    "benchmark",
    "fraction",
    "model",
    "other",
    "difference",
    "low",
    "high",
    "p",
    "p_adjusted",
    "probability",
    "probability_low",
    "probability_high",
    "folds",
    "people",
]
Pairs = dict[tuple[str, str], Estimate]


def differences(scores: Scores, models: list[str] | None = None) -> Pairs:
    """(model, other) → model minus other, paired by test group. Every pair once, in the models' order."""
    models = scores.models if models is None else models
    return {
        (model, other): estimate(scores.by_fold(scores.people[model] - scores.people[other]))
        for place, model in enumerate(models)
        for other in models[place + 1 :]
    }


def comparison(scores: dict[tuple[str, float], Scores]) -> pd.DataFrame:
    """All pairs of models on every benchmark and label fraction, and over benchmarks (`mean`): `COLUMNS`.

    The better model of a pair is `model`. p-values are adjusted over all pairs of one benchmark and fraction.
    The probability of improvement is for a person of a new fold; over benchmarks it is left out.
    """
    parts = [
        _table(
            benchmark,
            fraction,
            differences(here),
            lambda model, other: chance_above_zero(
                here.by_fold(here.people[model] - here.people[other])  # noqa: B023
            ),
        )
        for (benchmark, fraction), here in scores.items()
    ]
    for fraction, (models, of_benchmarks) in over_benchmarks(scores).items():
        each = [differences(here, models) for here in of_benchmarks.values()]
        pairs = {pair: mean_of([known[pair] for known in each]) for pair in each[0]}
        parts.append(_table(MEAN, fraction, pairs, lambda model, other: (float("nan"),) * 3))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def over_benchmarks(
    scores: dict[tuple[str, float], Scores],
) -> dict[float, tuple[list[str], dict[str, Scores]]]:
    """Label fraction → models that all tuned benchmarks have, the best mean first; benchmark → its scores.

    Fractions that a tuned benchmark lacks, or that fewer than two models have, are absent: the mean over some
    of the benchmarks is not what docs/protocol.md asks for.
    """
    fractions = {}
    for fraction in sorted({fraction for _, fraction in scores}):
        here = {name: scores[name, fraction] for name in TUNED if (name, fraction) in scores}
        means = pd.DataFrame({name: each.folds.mean() for name, each in here.items()}).dropna().mean(axis=1)
        if len(here) == len(TUNED) and len(means) > 1:
            models = list(means.sort_values(ascending=False, kind="stable").index)
            fractions[fraction] = models, here
    return fractions


def _table(benchmark, fraction, pairs, probability):
    adjusted = holm([known.p for known in pairs.values()])
    rows = [
        (
            benchmark,
            fraction,
            model,
            other,
            known.mean,
            known.low,
            known.high,
            known.p,
            p,
            *probability(model, other),
            known.folds,
            known.people,
        )
        for ((model, other), known), p in zip(pairs.items(), adjusted, strict=True)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def interval(mean: float, low: float, high: float, form: str = "+.1f") -> str:
    """`mean [low, high]` with signs; only the mean if there is no interval."""
    text = _signed(mean, form)
    return text + (f" [{_signed(low, form)}, {_signed(high, form)}]" if low == low else "")


def _signed(value, form):
    """A number in this form; what rounds to zero has no sign."""
    text = f"{value:{form}}"
    return text if any(digit in text for digit in "123456789") else text.lstrip("+-")


def tested(rows: pd.DataFrame) -> dict[str, list[str]]:
    """The columns of a table for readers that tell a difference: with its interval, and its adjusted p-value.

    rows: `difference, low, high, p_adjusted`.
    """
    return {
        "difference": [interval(row.difference, row.low, row.high) for row in rows.itertuples()],
        "adjusted p": list(map(p_text, rows.p_adjusted)),
    }


def write(table: pd.DataFrame, out) -> None:
    """Write all pairs, as a tidy table, and for readers per benchmark and label fraction."""
    out.data(table, "equal_comparison")
    for (benchmark, fraction), rows in table.groupby(["benchmark", "fraction"], sort=False):
        shown = pd.DataFrame({"higher mean": rows.model, "other": rows.other, **tested(rows)})
        if benchmark != MEAN:
            shown["P(improvement)"] = [
                interval(row.probability, row.probability_low, row.probability_high, ".2f")
                for row in rows.itertuples()
            ]
        where = "the mean over benchmarks" if benchmark == MEAN else benchmark
        unit = group_name(*(TUNED if benchmark == MEAN else [benchmark]))
        caption = (
            f"Pairs of models on {where} with {percent(fraction)} of the labels: difference of avg mAP "
            f"(points), paired by {unit}, with 95 % nested interval (not adjusted). p-values: Holm-adjusted "
            "over all pairs."
        )
        if benchmark != MEAN:
            caption += f" P(improvement): probability that the score of a new {unit} is higher."
        out.table(shown, f"equal_pairs_{benchmark}_{100 * fraction:g}", caption)


def p_text(p: float) -> str:
    """A p-value with three decimals; `< 0.001` below."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
