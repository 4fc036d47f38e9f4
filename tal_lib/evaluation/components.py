"""Components of variance: which part of a score's spread is due to the person, the subset sample, the seed.

The design is crossed within folds: every person of a fold is scored by every combination of a subset sample
and a training seed. Subset samples and seeds of different folds have nothing in common, because every fold
has its own training part. The components are estimated from the mean squares of a three-way layout without
replication, in each fold, and averaged over folds. These estimates are unbiased; a component may be negative,
and is given as zero after the mean over folds.

Source: Searle, Casella & McCulloch, Variance Components (1992), chapter 4.
"""

import numpy as np
import pandas as pd

PARTS = ("person", "subset", "seed", "subset_seed", "rest", "fold")


def variances(cube: np.ndarray) -> dict[str, float]:
    """Unbiased variances of one fold, from scores (people, subset samples, seeds).

    `person`, `subset`, `seed`, `subset_seed` (their interaction: a training's own part), `person_subset`,
    `person_seed`, and `residual`.

    Raises:
        ValueError: fewer than two of anything, or a missing score.
    """
    y = np.asarray(cube, dtype=float)
    if y.ndim != 3 or min(y.shape) < 2 or np.isnan(y).any():
        raise ValueError(
            f"no components of variance: a crossed design of {' × '.join(map(str, y.shape))}, "
            f"{int(np.isnan(y).sum())} missing"
        )
    effects: dict[tuple[int, ...], np.ndarray] = {(): y.mean()}
    squares: dict[tuple[int, ...], float] = {}
    for kept in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        effect = y.mean(axis=tuple(axis for axis in range(3) if axis not in kept), keepdims=True)
        for smaller, known in effects.items():
            if set(smaller) < set(kept):
                effect = effect - known
        effects[kept] = effect
        freedom = np.prod([y.shape[axis] - 1 for axis in kept])
        squares[kept] = float(np.square(effect).sum()) * y.size / effect.size / float(freedom)
    people, subsets, seeds = y.shape
    rest = squares[0, 1, 2]
    pairs = {(0, 1): squares[0, 1], (0, 2): squares[0, 2], (1, 2): squares[1, 2]}
    return {
        "person": (squares[0,] - pairs[0, 1] - pairs[0, 2] + rest) / (subsets * seeds),
        "subset": (squares[1,] - pairs[0, 1] - pairs[1, 2] + rest) / (people * seeds),
        "seed": (squares[2,] - pairs[0, 2] - pairs[1, 2] + rest) / (people * subsets),
        "subset_seed": (pairs[1, 2] - rest) / people,
        "person_subset": (pairs[0, 1] - rest) / seeds,
        "person_seed": (pairs[0, 2] - rest) / subsets,
        "residual": rest,
    }


def components(table: pd.DataFrame, value: str = "value") -> dict[str, float]:
    """Standard deviations of a person's score by `PARTS`, in the unit of the value.

    `rest` has the interactions with the person and the residual. `fold` is what the mean of a fold varies
    more than its people, subset samples and seeds explain.

    Args:
        table: one row per person, subset sample and seed: `fold, person, subset_seed, seed` and the value.

    Raises:
        ValueError: fewer than two folds, or a fold whose design is not crossed and complete.
    """
    cubes = [_cube(rows, value) for _, rows in table.groupby("fold")]
    if len(cubes) < 2:
        raise ValueError(f"no components of variance: {len(cubes)} fold")
    folds = [variances(cube) for cube in cubes]
    mean = {name: float(np.mean([fold[name] for fold in folds])) for name in folds[0]}
    interactions = ("person_subset", "person_seed", "residual")
    # what the means of the folds vary by all other parts: each is averaged over its levels
    explained = sum(
        mean[name] * float(np.mean([1 / np.prod([cube.shape[axis] for axis in axes]) for cube in cubes]))
        for name, axes in _AXES.items()
    )
    between = float(np.var([cube.mean() for cube in cubes], ddof=1)) - explained
    parts = {name: mean[name] for name in ("person", "subset", "seed", "subset_seed")}
    parts |= {"rest": sum(mean[name] for name in interactions), "fold": between}
    return {name: max(0.0, parts[name]) ** 0.5 for name in PARTS}


_AXES = {
    "person": (0,),
    "subset": (1,),
    "seed": (2,),
    "subset_seed": (1, 2),
    "person_subset": (0, 1),
    "person_seed": (0, 2),
    "residual": (0, 1, 2),
}


def repeated(table: pd.DataFrame, source: str, value: str = "value") -> tuple[float, float, float]:
    """Standard deviation of a fold's mean score when only `source` changes, with its 95 % interval.

    The chi-square interval counts the levels of the other source once: they share what the levels of `source`
    add to both. So it is too wide rather than too narrow.

    Args:
        table: as for `components`, crossed within folds.
        source: `seed` (another training seed on the same subset sample) or `subset_seed`.
    """
    from scipy import stats  # here: the import takes long

    other = {"seed": "subset_seed", "subset_seed": "seed"}[source]
    means = table.groupby(["fold", other, source])[value].mean().unstack(source)  # pyright: ignore[reportAttributeAccessIssue]
    scores = means.to_numpy(dtype=float)
    variance = float(np.var(scores, axis=1, ddof=1).mean())
    freedom = table.fold.nunique() * (scores.shape[1] - 1)
    low, high = np.sqrt(freedom * variance / stats.chi2.ppf([0.975, 0.025], freedom))
    return variance**0.5, float(low), float(high)


def _cube(rows, value):
    """Scores (people, subset samples, seeds) of one fold; NaN where a score is missing."""
    wide = rows.set_index(["person", "subset_seed", "seed"])[value]
    levels = [sorted(rows[name].unique()) for name in ("person", "subset_seed", "seed")]
    shape = [len(values) for values in levels]
    return wide.reindex(pd.MultiIndex.from_product(levels)).to_numpy(dtype=float).reshape(shape)
