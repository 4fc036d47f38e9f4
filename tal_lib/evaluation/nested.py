"""Statistics over people nested in folds: what a difference between models is worth on other people.

A fold's test people share one training, so their scores are not independent. Every interval here therefore
has two parts of variance: between folds, and between the people of a fold. mAP is no mean over people. A
person's score is the jackknife's pseudo-value (Miller, The Jackknife: A Review, Biometrika 1974); the mean of
these is the fold's mAP but for its bias.

The interval is Student's. Its degrees of freedom are those of the part of variance that is seen.
Simulated coverage (tests) is at least 93 % for five folds of 3 to 14 people, with normal and heavy-tailed
scores, whichever part is larger. A percentile bootstrap over folds and people was tried beside it: it
covers 84 % where folds dominate.

The p-value always has the degrees of freedom of the folds. Corrected for many comparisons, it is read far
in the tails, where the interval's degrees of freedom, chosen from the data, call too many differences:
about 17 % of simulated tables of nine equal models had a false one. Now fewer than 1 % have.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tal_lib.evaluation.average_precision import interpolated_ap, matches

NONE = np.arange(0)  # ranks of no detection
LEVEL = 0.05  # adjusted p-value below which a difference is told apart from none (docs/protocol.md)


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval.

    Attributes:
        p: two-sided p-value of a mean of zero, with the degrees of freedom of the folds.
        between, within: variances of the mean due to folds and to people.
        folds, people: how many there are.
        freedom: degrees of freedom of the variance.
    """

    mean: float
    low: float
    high: float
    p: float
    between: float
    within: float
    folds: int
    people: int
    freedom: float


def pseudo_values(whole: float, without: np.ndarray) -> np.ndarray:
    """Scores (P,) of a fold's people, from its score and the scores (P,) without each person."""
    without = np.asarray(without, dtype=float)
    return len(without) * whole - (len(without) - 1) * without


def by_person(
    annotations: pd.DataFrame, detections: pd.DataFrame, tious, person_of: Mapping[str, str]
) -> pd.DataFrame:
    """What each person adds to the avg mAP of a fold: `person, segments, without, score`.

    Args:
        person_of: recording → person, of every tested recording.

    Returns:
        One row per person: annotated segments, avg mAP without the person's recordings, and the pseudo-value.
        Empty if there is only one person.
    """
    people = sorted(set(person_of.values()))
    if len(people) < 2:
        return pd.DataFrame({"person": [], "segments": [], "without": [], "score": []})
    owner = annotations.recording.map(person_of)
    scores = _without_each(annotations, detections, tious, person_of, people)
    whole, without = float(scores[0]), scores[1:]
    segments = owner.value_counts().reindex(people, fill_value=0).to_numpy()
    return pd.DataFrame(
        {"person": people, "segments": segments, "without": without, "score": pseudo_values(whole, without)}
    )


def _without_each(annotations, detections, tious, person_of, people):
    """avg mAP of all recordings, then without those of each person: (1 + P,).

    A detection takes an annotation of its own recording. So all matches are found once: those of the other
    recordings stay as they are when a person's recordings are left out.
    """
    taken = matches(annotations, detections, tious)
    owner = annotations.recording.map(person_of).to_numpy()
    labels = annotations.label.to_numpy()
    best_first = np.lexsort((-np.arange(len(detections)), -detections.score.to_numpy(dtype=float)))
    detected = detections.recording.map(person_of).to_numpy()[best_first]
    of_class = pd.Series(best_first).groupby(detections.label.to_numpy()[best_first]).indices
    hits = {tiou: row[best_first] >= 0 for tiou, row in taken.items()}
    rows = []
    for place, person in enumerate([None, *people]):
        kept = detected != person
        counts, ranks = Counter(labels[owner != person]), {}
        for label in counts:
            at = of_class.get(label, NONE)
            ranks[label] = at[kept[at]]
        rows += [
            (place, tiou, interpolated_ap(hit[ranks[label]], total))
            for tiou, hit in hits.items()
            for label, total in counts.items()
        ]
    if not rows:  # nothing is annotated
        return np.full(1 + len(people), np.nan)
    table = pd.DataFrame(rows, columns=["place", "tiou", "ap"])
    by_tiou = table.groupby(["place", "tiou"], sort=False).ap.mean()
    means = {place: scores.mean() for place, scores in by_tiou.groupby(level="place")}
    return np.array([means.get(place, np.nan) for place in range(1 + len(people))])


def nested_estimate(table: pd.DataFrame, value: str = "value", confidence: float = 0.95) -> Estimate:
    """Mean over folds of a value of people, with an interval for other people and other trainings.

    Args:
        table: one row per person: `fold, person` and the value. A person who has several rows (draws, seeds)
            counts once, with their mean. Folds weigh equally.

    Raises:
        ValueError: fewer than two folds, or no fold with two people.
    """
    people = table.groupby(["fold", "person"])[value].mean().dropna()  # pyright: ignore[reportAttributeAccessIssue]
    return estimate([scores.to_numpy() for _, scores in people.groupby("fold")], confidence)


def estimate(scores: list[np.ndarray], confidence: float = 0.95) -> Estimate:
    """The same from arrays: the scores (P,) of each fold's people.

    Raises:
        ValueError: fewer than two folds, or no fold with two people.
    """
    folds, sizes = len(scores), np.array([len(values) for values in scores])
    people, spare = int(sizes.sum()), int((sizes - 1).sum())
    if folds < 2 or spare < 1:
        raise ValueError(f"no interval: {folds} folds with {people} people")
    means = np.array([values.mean() for values in scores])
    person_variance = sum(float(np.square(values - values.mean()).sum()) for values in scores) / spare
    within = person_variance * float((1 / sizes).mean()) / folds
    total = float(means.var(ddof=1)) / folds  # estimates both parts together
    between = max(0.0, total - within)
    mean = float(means.mean())
    # the variance is `total` where folds add to it, else `within`; each with its own degrees of freedom
    freedom = folds - 1 if between > 0 else spare
    return _with_interval(mean, between, within, (freedom, folds - 1), folds, people, confidence)


def _with_interval(mean, between, within, freedoms, folds, people, confidence):
    """The estimate of a mean with this variance: Student's interval and p-value, each with its freedom."""
    from scipy.special import stdtr, stdtrit  # in functions: the import takes long, and mAP needs none of it

    variance, (freedom, of_p) = between + within, freedoms
    if variance == 0:
        return Estimate(mean, mean, mean, float(mean == 0), 0.0, 0.0, folds, people, freedom)
    spread = float(stdtrit(freedom, 0.5 + confidence / 2)) * variance**0.5
    p = float(2 * stdtr(of_p, -abs(mean) / variance**0.5))
    return Estimate(mean, mean - spread, mean + spread, p, between, within, folds, people, freedom)


def mean_of(estimates: Sequence[Estimate], confidence: float = 0.95) -> Estimate:
    """Mean of independent estimates with equal weights, for example of one model on several benchmarks.

    The variance is the sum of the variances over the square of their number. Its degrees of freedom are
    Satterthwaite's (Biometrics Bulletin 1946). The benchmarks are a fixed choice: the interval is over their
    people and folds, not over benchmarks.
    """
    count = len(estimates)
    variances = np.array([each.between + each.within for each in estimates])
    total = float(variances.sum())

    def combined(freedoms):
        return total**2 / float((variances**2 / freedoms).sum()) if total else float(sum(freedoms))

    freedoms = (
        combined(np.array([each.freedom for each in estimates])),
        combined(np.array([each.folds - 1 for each in estimates])),
    )
    return _with_interval(
        float(np.mean([each.mean for each in estimates])),
        sum(each.between for each in estimates) / count**2,
        sum(each.within for each in estimates) / count**2,
        freedoms,
        sum(each.folds for each in estimates),
        sum(each.people for each in estimates),
        confidence,
    )


def paired_estimate(ours: pd.DataFrame, theirs: pd.DataFrame, value: str = "value") -> Estimate:
    """Ours minus theirs, paired by person (and by `draw`, where both tables have it)."""
    keys = [name for name in ("fold", "person", "draw") if name in ours and name in theirs]
    both = ours.merge(theirs, on=keys, suffixes=("", "_other"), validate="1:1")
    return nested_estimate(both.assign(difference=both[value] - both[f"{value}_other"]), "difference")


def holm(p_values) -> np.ndarray:
    """p-values (N,) adjusted for N comparisons (Holm, Scandinavian Journal of Statistics 1979)."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]))
    return adjusted


def groups(
    means: Mapping[str, float], differences: Mapping[tuple[str, str], float], level: float = LEVEL
) -> dict[str, str]:
    """Letters: two models share one if they cannot be told apart (Piepho, JCGS 2004: insert and absorb).

    Args:
        means: model → mean; letters follow the order of the means, the best first.
        differences: adjusted p-value of each pair of models, in either order.
    """
    names = sorted(means, key=lambda name: -means[name])
    columns = [set(names)]
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            p = differences.get((first, second), differences.get((second, first), 1.0))
            if not p < level:  # NaN: nothing is known
                continue
            split = []
            for column in columns:
                split += [column - {first}, column - {second}] if {first, second} <= column else [column]
            columns = [column for column in split if not any(column < other for other in split)]
            columns = [column for index, column in enumerate(columns) if column not in columns[:index]]
    columns.sort(key=lambda column: sorted(map(names.index, column)))
    return {
        name: "".join(_letter(index) for index, column in enumerate(columns) if name in column)
        for name in names
    }


def _letter(index):
    return "abcdefghijklmnopqrstuvwxyz"[index] if index < 26 else f"[{index + 1}]"


def improvement(ours: pd.DataFrame, theirs: pd.DataFrame, value: str = "value") -> tuple[float, float, float]:
    """Probability that ours is better for a person of a new fold, with a 95 % interval.

    The share of people for whom ours is better; equal: half; without a score: left out. Folds weigh equally.

    The interval is that of Agresti and Coull (The American Statistician 1998): two successes and two failures
    are added, so it is never a point. It has an effective number of people (Korn and Graubard, Survey
    Methodology 1998): as many independent people would give the mean difference the variance that it has.
    The share itself does not tell this: if ours is better for everybody, its variance is zero. The quantile
    is Student's, with the degrees of freedom of the mean difference. Simulated coverage is at least 93 %.
    """
    keys = [name for name in ("fold", "person", "draw") if name in ours and name in theirs]
    both = ours.merge(theirs, on=keys, suffixes=("", "_other"), validate="1:1")
    difference = both[value] - both[f"{value}_other"]
    both = both.assign(difference=difference, better=_better(difference))
    people = pd.DataFrame(both.groupby(["fold", "person"])[["difference", "better"]].mean()).dropna()
    folds = [rows.to_numpy() for _, rows in people.groupby(level="fold")]
    return _chance([values[:, 0] for values in folds], [values[:, 1] for values in folds])


def chance_above_zero(differences: list[np.ndarray]) -> tuple[float, float, float]:
    """The same from arrays: the differences (P,) of each fold's people."""
    return _chance(differences, [_better(values) for values in differences])


def _better(difference):
    return np.where(np.isnan(difference), np.nan, (difference > 0) + 0.5 * (difference == 0))


def _chance(differences, better):
    """The mean share of people with its interval, from the differences and shares (P,) of each fold."""
    from scipy.special import stdtrit

    share, known = float(np.mean([values.mean() for values in better])), estimate(differences)
    people = _effective_people(known, np.array([len(values) for values in differences]))
    centre = (people * share + 2) / (people + 4)
    spread = float(stdtrit(known.freedom, 0.975)) * (centre * (1 - centre) / (people + 4)) ** 0.5
    return share, max(0.0, centre - spread), min(1.0, centre + spread)


def _effective_people(known, sizes):
    """How many independent people would give a mean the variance that it has, for folds of these sizes."""
    variance = known.between + known.within  # of the mean
    if variance == 0:
        return known.people
    return known.folds * (known.between + known.within / float((1 / sizes).mean())) / variance
