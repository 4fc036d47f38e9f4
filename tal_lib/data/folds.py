"""Cross-validation folds by person, or by recording where persons are unknown; and held-out people.

A fold is a set of test groups. A group is a person, or one recording. All other recordings of the data set
are the fold's training part. So no person is on both sides.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from tal_lib.errors import TalError

COUNT = 5
OFFICIAL = -1  # in place of a fold's number: the official split
HELD_OUT_EVERY = 4  # the validation part is every fourth group of a training part


def seeded_folds(
    groups: Iterable[str], count: int = COUNT, seed: int = 0, kinds: Mapping[str, str] | None = None
) -> tuple[tuple[str, ...], ...]:
    """Test groups of each fold: a random partition by seed. Sizes differ by at most one.

    Args:
        groups: names in any order, repeats allowed; fewer than `count` groups give fewer folds.
        kinds: group → kind. The folds then share the groups of each kind evenly.
    """
    names = sorted(set(groups))
    rng = np.random.default_rng([seed, len(names), 5])
    order = [names[i] for i in rng.permutation(len(names))]
    if kinds is not None:
        order.sort(key=lambda name: kinds[name])  # stable: random within a kind
    count = min(count, len(names))
    return tuple(tuple(sorted(order[number::count])) for number in range(count)) if count > 1 else ()


def folds_by_number(recordings: Sequence[str], count: int = COUNT) -> tuple[tuple[str, ...], ...]:
    """Recordings dealt to the folds in their order: number i goes to fold i modulo `count`."""
    return tuple(tuple(recordings[number::count]) for number in range(count))


def with_fold(recordings: pd.DataFrame, groups: Mapping[str, str], tested: Iterable[str]) -> pd.DataFrame:
    """The table `recording, split, …` with another split: recordings of the tested groups are `test`."""
    inside = recordings.recording.map(groups).isin(set(tested))
    return recordings.assign(split=np.where(inside, "test", "train"))


def with_validation(recordings: pd.DataFrame, groups: Mapping[str, str], where: str) -> pd.DataFrame:
    """The training recordings of a table `recording, split, …`; those of held-out groups become `test`.

    Every fourth group is held out, the first of the sorted groups included.

    Raises:
        TalError: fewer than two groups to learn from.
    """
    training = recordings[recordings.split == "train"]
    names = sorted({groups[recording] for recording in training.recording})
    if len(names) < 2:
        raise TalError(
            f"{len(names)} group of training recordings, too few to hold some out",
            where=where,
            remedy="Use a benchmark with more training recordings.",
        )
    return with_fold(training, groups, names[::HELD_OUT_EVERY])  # pyright: ignore[reportArgumentType]


def check_fold(number: int, count: int, where: str) -> None:
    """Raise `TalError` unless a benchmark with `count` folds has fold `number`, or it is `OFFICIAL`."""
    if number != OFFICIAL and not 0 <= number < count:
        choice = (
            f"Choose 0 to {count - 1}, or {OFFICIAL} for the official split."
            if count
            else (f"It has no folds: leave `fold` out, or give {OFFICIAL}.")
        )
        raise TalError(f"fold {number} does not exist", where=where, remedy=choice)
