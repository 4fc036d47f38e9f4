"""The findings of the equal arm in words, from its tidy tables. A winner is named only where there is one."""

import re
from collections.abc import Callable, Iterable
from itertools import groupby
from operator import itemgetter

import pandas as pd

from tal_lib.reports.efficiency.runs import FLOOR, OUR_MODEL
from tal_lib.reports.equal import factorial
from tal_lib.reports.equal.arms import MEAN, percent

Read = Callable[[str], pd.DataFrame]  # name of a tidy table → the table, empty if there is none
RANKED = "equal_values"


def questions(read: Read) -> list[tuple[str, float]]:
    """(benchmark, label fraction) of which the best model is asked: the smallest and the largest fraction.

    Over the tuned benchmarks (`mean`) where that is known, else on each benchmark.
    """
    table = read(RANKED)
    if not len(table):
        return []
    names = [MEAN] if (table.benchmark == MEAN).any() else list(dict.fromkeys(table.benchmark))
    pairs = []
    for name in names:
        fractions = table[(table.benchmark == name) & table.place.notna()].fraction
        pairs += [(name, fraction) for fraction in sorted({fractions.min(), fractions.max()})]
    return pairs


def ranked(read: Read, benchmark: str, fraction: float) -> pd.DataFrame:
    """The ranked models of a benchmark (or `mean`) at a label fraction, best first."""
    table = read(RANKED)
    rows = table[(table.benchmark == benchmark) & (table.fraction == fraction) & table.place.notna()]
    return rows.sort_values("place")


def leaders(rows: pd.DataFrame) -> pd.DataFrame:
    """The models that cannot be told apart from the best one: they share a letter with it."""
    split = [_letters(letters) for letters in rows.letters]
    return rows[[bool(split[0] & letters) for letters in split]]


def advised(rows: pd.DataFrame) -> pd.DataFrame:
    """The leaders of which no other is significantly better: no two of them can be told apart."""
    level = leaders(rows)
    return level[[not _better(row, level) for row in level.itertuples()]]


def _better(row, level):
    """The names of the models in `level` that have a higher mean and share no letter."""
    better = level[level["mean"] > row.mean]
    return [
        model
        for model, letters in zip(better.model, better.letters)
        if not _letters(letters) & _letters(row.letters)
    ]


def _left_out(rows):
    """(row, better models) of each leader that is not in `advised`."""
    level = leaders(rows)
    return [(row, better) for row in level.itertuples() if (better := _better(row, level))]


def all_alike(level: pd.DataFrame) -> bool:
    """Whether the leaders share a letter, so that none of them differs from another."""
    return bool(set.intersection(*map(_letters, level.letters)))


def verdict(rows: pd.DataFrame, macs: pd.Series | None = None) -> tuple[str, str]:
    """(what to use, because) of ranked models. Without a winner, `use` names all models of `advised`.

    Args:
        rows: from `ranked`.
        macs: model → MACs; models without are never the cheapest.
    """
    use = advised(rows)
    known = macs.reindex(use.model).dropna() if macs is not None and len(use) > 1 else pd.Series(dtype=float)
    cheapest = (
        [f"The one with the fewest MACs is {known.idxmin()}: {known.min() / 1e9:.2f} GMACs."]
        if len(known)
        else []
    )
    left_out = [
        f"{row.model} ({row.mean:.1f}) is left out: {listed(better, 'and')} can be told apart from it."
        for row, better in _left_out(rows)
    ]
    return listed(use.model, "or"), " ".join([f"{_lead(rows)}.", *cheapest, *_next(rows), *left_out])


def _lead(rows):
    """What the models that lead have: a score that is significantly better, or a common one."""
    first, level = rows.iloc[0], leaders(rows)
    if len(level) == 1:
        scored = f"{first['mean']:.1f} avg mAP [{first.low:.1f}, {first.high:.1f}]"
        return f"{scored}, significantly better than all others"
    if not all_alike(level):
        return f"{first.model} has the highest mean ({first['mean']:.1f} avg mAP)"
    return (
        f"{len(level)} models cannot be told apart "
        f"({level['mean'].min():.1f} to {level['mean'].max():.1f} avg mAP)"
    )


def _next(rows):
    """A sentence on the models that differ from the best: all, or the three best behind the leaders."""
    level = leaders(rows)
    others = rows[~rows.model.isin(level.model)]
    if not all_alike(level):
        parts = [f"{row.model} ({row.mean:.1f})" for row in others.itertuples()]
        others_told = "Only " + listed(parts, "and") if parts else "No model"
        return [f"{others_told} can be told apart from {rows.iloc[0].model}."]
    parts = [f"{row.model} {row.mean:.1f} ({row.letters})" for row in others.head(3).itertuples()]
    return [f"Next: {', '.join(parts)}."] if parts else []


def listed(names: Iterable[str], word: str) -> str:
    """`a, b and c`, with the word before the last name."""
    names = list(names)
    return f"{', '.join(names[:-1])} {word} {names[-1]}" if len(names) > 1 else names[0]


def findings(read: Read, macs: pd.Series | None = None) -> list[str]:
    """Paragraphs in plain text: the conclusion, the factorial, this study's own model, then who leads on each
    benchmark if there is no mean over them; empty without an equal arm.

    Args:
        read: the tidy tables.
        macs: model → MACs, to say which other model to use.
    """
    summary = read("factorial_summary")
    if len(summary) and (summary.benchmark == MEAN).any():
        summary = summary[summary.benchmark == MEAN]
    if len(summary) and summary.benchmark.nunique() > 1:
        sentences = factorial.overview(summary)
    elif len(summary) and summary.benchmark.iloc[0] == MEAN:
        sentences = [factorial.of_mean(summary)]
    else:
        sentences = [factorial.sentence(row) for row in summary.itertuples()]
    first = conclusion(read, summary)
    sentences = first + sentences
    if rank := our_rank(read(RANKED)):
        sentences.append(f"{rank} {instead(read, macs)}".strip())
    asked = groupby(questions(read), key=itemgetter(0))
    return sentences + [
        _of_benchmark(read, name, [pair[1] for pair in pairs])
        for name, pairs in asked
        if not (first and name == MEAN)
    ]


def conclusion(read: Read, summary: pd.DataFrame) -> list[str]:
    """How far apart the models are and what the recipe adds; then, by label fraction, who leads and what the
    floor has. Empty without a mean over benchmarks.

    summary: the factorial of the mean over benchmarks, a row per label fraction.
    """
    asked = [fraction for name, fraction in questions(read) if name == MEAN]
    if not asked or not len(summary) or set(summary.benchmark) != {MEAN}:
        return []
    recipe = summary.set_index("fraction").recipe.reindex(asked)  # NaN where the plain arm is not finished
    table = read(RANKED)
    floors = table[(table.benchmark == MEAN) & (table.model == FLOOR)].set_index("fraction")["mean"]
    parts, gaps, groups = [], [], []
    for fraction in asked:
        rows = ranked(read, MEAN, fraction)
        level, last = advised(rows), rows["mean"].min()
        best, first = level.model.iloc[0], f"{level['mean'].max():.1f} avg mAP"
        lead = (
            f"{len(level)} models lead ({level['mean'].min():.1f} to {first}, {best} the highest)"
            if len(level) > 1
            else f"{best} leads ({first})"
        )
        of_floor = f", and the floor, {FLOOR}, {floors[fraction]:.1f}" if fraction in floors else ""
        text = f"With the equal recipe and {percent(fraction)} of the labels, {lead}."
        parts.append(" ".join([text, *_between(rows, level), f"The last has {last:.1f}{of_floor}."]))
        gaps.append(rows["mean"].max() - last)
        groups.append(len(level))
    adds = "" if recipe.isna().any() else f"; the recipe adds {value_range(recipe)} on average"
    verdict = [f"The best and the last of {len(rows)} models differ by {value_range(gaps)} points{adds}."]
    if min(groups) > 1:
        verdict.append("The leading ones cannot be told apart.")
    return [" ".join(verdict), *parts]


def _between(rows, level):
    """A sentence per model that can be told apart from some of the leading ones only. level: `advised`."""
    sentences = []
    for row in rows[~rows.model.isin(level.model)].itertuples():
        alike = [model for model in level.model if _share_a_letter(rows, model, row.model)]
        apart = [model for model in level.model if model not in alike]
        rest = alike[0] if len(alike) == 1 else f"the other {len(alike)}"
        if not apart:  # another model is better that is left out itself
            apart, rest = _better(row, leaders(rows)), listed(alike, "and")
        if alike and apart:
            sentences.append(
                f"{row.model} ({row.mean:.1f}) can be told apart from {listed(apart, 'and')}, but not from "
                f"{rest}."
            )
    return sentences


def value_range(values) -> str:
    """`1.0 to 2.2`, or one number."""
    ends = [f"{min(values):.1f}", f"{max(values):.1f}"]
    return " to ".join(dict.fromkeys(ends))


def _of_benchmark(read, benchmark, fractions):
    """Who leads on a benchmark, and what the floor has."""
    table = read(RANKED)
    where = "Averaged over the tuned benchmarks" if benchmark == MEAN else f"On {benchmark}"
    parts = [f"{where}, with the equal recipe and {percent(fractions[0])} of the labels,"]
    for fraction in fractions:
        if fraction != fractions[0]:
            parts.append(f"With {percent(fraction)} of the labels,")
        parts.append(_finding(ranked(read, benchmark, fraction)))
    floor = table[(table.benchmark == benchmark) & (table.model == FLOOR)].set_index("fraction")["mean"]
    values = [f"{value:.1f}" for value in floor.reindex(fractions).dropna()]
    parts += [f"The floor, {FLOOR}, has {listed(values, 'and')}."] * bool(values)
    return " ".join(parts)


def our_rank(table: pd.DataFrame) -> str:
    """Whether this study's own model is first in the mean over the benchmarks; empty where it has no rank.

    table: the tidy table `RANKED`.
    """
    if not len(table):
        return ""
    rows = table[(table.benchmark == MEAN) & table.place.notna()]
    models = rows.groupby("fraction").model.count()
    ours = rows[rows.model == OUR_MODEL].set_index("fraction").place.sort_index()
    if not len(ours):
        return ""
    ranks = [f"{place:g} of {models[fraction]} ({percent(fraction)})" for fraction, place in ours.items()]
    ahead = "is ahead" if (ours == 1).all() else "is not ahead"
    return (
        f"{OUR_MODEL}, this study's own model, {ahead} with the equal recipe. Its rank in the mean over "
        f"benchmarks is {listed(ranks, 'and')}."
    )


def instead(read: Read, macs: pd.Series | None) -> str:
    """The cheapest other model that leads, where this study's own is not ahead; empty where it is, or where
    no other leads at every label fraction.

    It is the cheapest of the others that lead in the mean over benchmarks at all label fractions.
    """
    asked = [ranked(read, *pair) for pair in questions(read)]
    if all(rows.model.iloc[0] == OUR_MODEL for rows in asked):
        return ""
    level = set.intersection(*(set(advised(rows).model) for rows in asked)) - {OUR_MODEL}
    known = macs.reindex(sorted(level)).dropna() if macs is not None else pd.Series(dtype=float)
    if known.empty:
        return ""
    fewest = f"the fewest MACs ({known.min() / 1e9:.2f} G)"
    cheapest = known.idxmin()
    if all(_share_a_letter(rows, OUR_MODEL, cheapest) for rows in asked):
        leads = all(OUR_MODEL in set(leaders(rows).model) for rows in asked)
        return (
            f"{OUR_MODEL} cannot be told apart from {cheapest}, which has {fewest} of the "
            f"{'other ' if leads else ''}models that lead at every label fraction."
        )
    return f"{cheapest} has {fewest} of the models that lead at every label fraction."


def _share_a_letter(rows, first, second):
    """Whether two ranked models cannot be told apart."""
    letters = {row.model: _letters(row.letters) for row in rows.itertuples()}
    return bool(letters.get(first, set()) & letters.get(second, set()))


def _finding(rows):
    """Who leads: one model, models that cannot be told apart, or the highest mean and what differs."""
    level = leaders(rows)
    if len(level) == 1:
        return f"{rows.model.iloc[0]} has {_lead(rows)}."
    if all_alike(level):
        return f"{_lead(rows)}: {listed(level.model, 'and')}."
    return " ".join([f"{_lead(rows)}.", *_next(rows)])


def _letters(text):
    """The letters of a model; after z they are numbers in brackets."""
    return set(re.findall(r"\[\d+\]|[a-z]", text))
