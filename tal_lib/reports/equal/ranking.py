"""The ranking under the equal arm: means over folds, intervals, and letters of models that cannot be told
apart."""

import pandas as pd

from tal_lib.data.registry import group_names
from tal_lib.evaluation.nested import Estimate, estimate, groups, mean_of, nested_estimate
from tal_lib.reports import tables
from tal_lib.reports.efficiency.runs import FLOOR
from tal_lib.reports.equal.arms import MEAN, TUNED, Scores, failures, percent, recipe_of
from tal_lib.reports.equal.pairs import over_benchmarks

TUNED_AT = 0.2  # label fraction of the tuning for smaller fractions (docs/protocol.md)
COLUMNS = [
    "benchmark",
    "fraction",
    "model",
    "place",
    "mean",
    "low",
    "high",
    "letters",
    "corrected",
    "fold_0",
    "between",
    "within",
    "folds",
    "people",
]


def ranking(scores: dict[tuple[str, float], Scores], pairs: pd.DataFrame) -> pd.DataFrame:
    """The models of every benchmark and label fraction, and over benchmarks (`mean`), best first: `COLUMNS`.

    `mean` is the mean over folds of avg mAP (%), `corrected` the same with the jackknife's correction of its
    bias, `fold_0` avg mAP on fold 0, whose training part chose the settings. `place` counts from 1; the floor
    is last, without place and letters, and takes part in no comparison.

    Args:
        pairs: the table of `pairs.comparison`.
    """
    rows = []
    for (benchmark, fraction), here in scores.items():
        letters = letters_of(pairs, benchmark, fraction, dict(here.folds.mean()))
        for place, model in enumerate(here.models, 1):
            known = estimate(here.by_fold(here.people[model]))
            more = here.corrected[model].mean(), here.folds[model].get(0)
            rows.append(_row(benchmark, fraction, model, place, known, letters[model], *more))
        if len(here.floor):
            known, fold = nested_estimate(here.floor), here.floor.groupby("fold")
            more = fold.score.mean().mean(), fold.avg_map.first().get(0)
            rows.append(_row(benchmark, fraction, FLOOR, None, known, "", *more))
    for fraction, (models, of_benchmarks) in over_benchmarks(scores).items():
        each = list(of_benchmarks.values())
        estimates = {
            model: mean_of([estimate(here.by_fold(here.people[model])) for here in each]) for model in models
        }
        letters = letters_of(pairs, MEAN, fraction, {model: estimates[model].mean for model in models})
        for place, model in enumerate(models, 1):
            corrected = sum(here.corrected[model].mean() for here in each) / len(each)
            rows.append(_row(MEAN, fraction, model, place, estimates[model], letters[model], corrected, None))
        if all(len(here.floor) for here in each):
            known = mean_of([nested_estimate(here.floor) for here in each])
            rows.append(_row(MEAN, fraction, FLOOR, None, known, "", None, None))
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.astype({"place": "Int64"})


def _row(benchmark, fraction, model, place, known: Estimate, letters, corrected, fold_0):
    return (
        benchmark,
        fraction,
        model,
        place,
        known.mean,
        known.low,
        known.high,
        letters,
        corrected,
        fold_0,
        known.between,
        known.within,
        known.folds,
        known.people,
    )


def letters_of(pairs: pd.DataFrame, benchmark: str, fraction: float, means: dict) -> dict[str, str]:
    """Letters of the models: two share one if they cannot be told apart (adjusted p of at least 0.05)."""
    rows = pairs[(pairs.benchmark == benchmark) & (pairs.fraction == fraction)]
    return groups(means, {(row.model, row.other): row.p_adjusted for row in rows.itertuples()})


def left_out(scores: dict[tuple[str, float], Scores], ranked: pd.DataFrame) -> pd.DataFrame:
    """Models that are not ranked: `benchmark, fraction, model, why`."""
    rows = []
    for (benchmark, fraction), here in scores.items():
        for model, folds in here.left_out.items():
            which = ", ".join(map(str, folds))
            rows.append(
                (benchmark, fraction, model, f"{len(folds)} of {len(here.folds)} folds: {which} only")
            )
    for fraction, (_, of_benchmarks) in over_benchmarks(scores).items():
        every = sorted({model for here in of_benchmarks.values() for model in here.folds})
        for model in every:
            lacking = [name for name, here in of_benchmarks.items() if model not in here.folds]
            if lacking:
                rows.append((MEAN, fraction, model, f"not ranked on {', '.join(lacking)}"))
    return pd.DataFrame(rows, columns=["benchmark", "fraction", "model", "why"])


def ranking_table(ranked: pd.DataFrame, missing: pd.DataFrame) -> pd.DataFrame:
    """Table for readers of one benchmark: a row per model, for each label fraction `mean [low, high]` and
    letters.

    The best model at the largest fraction is first, models that are not ranked there come last, then the
    floor. A model that is not ranked at a fraction has the reason in place of a number.
    """
    fractions = sorted(ranked.fraction.unique())
    order = ranked[ranked.model != FLOOR].sort_values(["fraction", "place"], ascending=[False, True])
    names = list(dict.fromkeys([*order.model, *missing.model]))
    if (ranked.model == FLOOR).any():
        names.append(FLOOR)
    table = pd.DataFrame({"model": names})
    for fraction in fractions:
        rows = ranked[ranked.fraction == fraction]
        text = dict(zip(rows.model, tables.with_interval(rows)))
        reasons = missing[missing.fraction == fraction]
        text |= dict(zip(reasons.model, reasons.why))
        letters = dict(zip(rows.model, rows.letters))
        table[percent(fraction)] = [text.get(name, "–") for name in names]
        table[f"group, {percent(fraction)}"] = [letters.get(name, "") or "–" for name in names]
    return table


def folds_table(scores: dict[float, Scores]) -> pd.DataFrame:
    """Table for readers of one benchmark: avg mAP on each fold and the mean, per label fraction and model.

    Args:
        scores: label fraction → the scores of the benchmark.
    """
    rows = []
    for fraction, here in sorted(scores.items()):
        for model in here.models:
            folds = here.folds[model].sort_index()
            values = {f"fold {fold}": f"{value:.1f}" for fold, value in folds.items()}
            mean = {"mean": f"{folds.mean():.1f}"}
            rows.append({"label fraction": percent(fraction), "model": model} | values | mean)
    return pd.DataFrame(rows).fillna("–")


def main_table(ranked: pd.DataFrame, fraction: float) -> pd.DataFrame:
    """Table for a paper: a row per model, for each tuned benchmark and their mean `mean ± half letters`.

    The nested interval is symmetric, so half of its width says all. Rows are in the order of the mean over
    benchmarks, the floor last.
    """
    rows = ranked[ranked.fraction == fraction]
    order = rows[rows.benchmark == MEAN].model
    table = pd.DataFrame({"model": list(order)})
    for benchmark in (*TUNED, MEAN):
        here = rows[rows.benchmark == benchmark]
        text = {
            row.model: f"{row.mean:.1f} ± {(row.high - row.low) / 2:.1f} {row.letters}".strip()
            for row in here[["model", "mean", "low", "high", "letters"]].itertuples()
        }
        table[benchmark] = [text.get(model, "–") for model in order]
    return table


NOTES = (
    "{marks}: 95 % interval over folds and {units}, not seeds{more}. Bold: highest mean. Models that share a "
    "letter cannot be told apart (paired t test, Holm, p < 0.05). {floor} (floor) reads no features.{failed}"
)


def write(
    ranked: pd.DataFrame,
    missing: pd.DataFrame,
    scores: dict[tuple[str, float], Scores],
    tuned: set[str],
    out,
) -> None:
    """Write the ranking and what is left out, as tidy tables, and for readers per benchmark.

    Args:
        tuned: see `arms.tuned_benchmarks`.
    """
    out.data(ranked, "equal_values")
    if len(missing):
        out.data(missing, "equal_left_out")
    for benchmark, rows in ranked.groupby("benchmark", sort=False):
        fractions = tuple(map(percent, sorted(rows.fraction.unique())))
        where = (
            f"mean over {', '.join(TUNED)}" if benchmark == MEAN else f"{benchmark}, {rows.folds.max()} folds"
        )
        recipe = recipe_of(benchmark, tuned)
        order = f" Ordered by {fractions[-1]}." * (len(fractions) > 1)
        names, shares = TUNED if benchmark == MEAN else (benchmark,), set(rows.fraction)
        failed = failures(scores, names, shares)
        caption = f"Avg mAP (%) by label fraction, {recipe}: {where}.{order} " + NOTES.format(
            marks="Brackets",
            units=_units(benchmark),
            more=" or benchmarks" * (benchmark == MEAN),
            floor=FLOOR,
            failed=failed,
        )
        gaps = missing[missing.benchmark == benchmark]
        out.table(ranking_table(rows, gaps), f"equal_{benchmark}", caption, tables.Best(high=fractions))
        if benchmark != MEAN:
            tuning = " on training recordings of fold 0" if benchmark in tuned else ""
            caption = f"Avg mAP (%) on {benchmark} by fold, {recipe}{tuning}.{failed}"
            here = {fraction: scores[benchmark, fraction] for fraction in rows.fraction.unique()}
            best = tables.Best(high=(...,), within=("label fraction",))
            out.table(folds_table(here), f"equal_folds_{benchmark}", caption, best)
    for fraction in ranked[ranked.benchmark == MEAN].fraction.unique():
        caption = (
            f"Avg mAP (%) with {percent(fraction)} of the labels, each model tuned on fold 0"
            f"{_tuned_with(fraction)}: means over five folds. "
        ) + NOTES.format(
            marks="±",
            units=_units(MEAN),
            more=" or benchmarks",
            floor=FLOOR,
            failed=failures(scores, TUNED, [fraction]),
        )
        name = f"equal_main_{100 * fraction:g}"
        out.table(main_table(ranked, fraction), name, caption, tables.Best(high=(*TUNED, MEAN)))


def _tuned_with(fraction):
    """The label fraction of the tuning, where it is another (docs/protocol.md)."""
    return f" with {percent(TUNED_AT)} of them" if fraction < TUNED_AT else ""


def _units(benchmark):
    """What an interval is over, beside folds: people, recordings, or both."""
    return group_names(*(TUNED if benchmark == MEAN else [benchmark]))
