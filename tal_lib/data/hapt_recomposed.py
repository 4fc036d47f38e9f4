"""HAPT whose recordings are cut in their gaps and rejoined at random, so that nothing follows a script.

45 of HAPT's 61 recordings have the same sequence of labels. Here, the signal of each person is cut between
any two annotated segments: at a random sample of the gap, or at the boundary where they touch (half do).
The pieces, one segment each, are shuffled and dealt to as many recordings as the person had, of random sizes.
Every piece is used once, so segments and hours are the same. People keep their split, and folds are by person
as in `hapt`.

- `hapt_recomposed`: training and test recordings.
- `hapt_recomposed_2`, `_3`, `_6`: a test recording has so many classes, chosen at random; the recordings of a
  person have different ones. Other pieces are left out. Training recordings are those of `hapt_recomposed`.
- `hapt_recomposed_test`: test recordings only; training recordings are the original ones.

This holds in every fold: the people of a fold's test part have recomposed recordings there, whatever their
official split. Folds are those of `hapt`.

Where pieces are joined, the signal jumps. A jump says that a boundary is near, in training and test alike.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from tal_lib.data import hapt
from tal_lib.data.benchmark import Benchmark
from tal_lib.data.folds import seeded_folds
from tal_lib.data.standardise import standardise

SEED = 0
CLASS_COUNTS = (2, 3, 6)


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of a recording.

    Attributes:
        signal: (S, 6).
        rows: (N,) the piece's segments as index labels of the recording's table.
        start, end: (N,) seconds from the piece's start.
    """

    signal: np.ndarray
    rows: np.ndarray
    start: np.ndarray
    end: np.ndarray


def pieces_of(signal: np.ndarray, segments: pd.DataFrame, rng: np.random.Generator) -> list[Piece]:
    """Cut a recording once between any two segments that do not overlap."""
    segments = segments.sort_values(["start", "end"])
    rows, starts, ends = (values.to_numpy() for values in (segments.index, segments.start, segments.end))
    cuts = [0]
    for end, start in zip(np.maximum.accumulate(ends)[:-1], starts[1:]):
        first, last = round(end * hapt.RATE_HZ), round(start * hapt.RATE_HZ)
        if last >= first:
            cuts.append(int(rng.integers(first, last + 1)))
    cuts.append(len(signal))
    parts = []
    for first, last in zip(cuts[:-1], cuts[1:]):
        shift = first / hapt.RATE_HZ
        inside = (starts >= shift) & (ends <= last / hapt.RATE_HZ)
        parts.append(Piece(signal[first:last], rows[inside], starts[inside] - shift, ends[inside] - shift))
    return parts


def deal(count: int, recordings: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Indices of `count` shuffled pieces in `recordings` groups of random sizes, none of them empty."""
    order = rng.permutation(count)
    cuts = np.sort(rng.choice(np.arange(1, count), min(recordings, count) - 1, replace=False))
    return np.split(order, cuts)


def deal_classes(
    labels: list[str], recordings: int, classes: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Indices of the pieces of each recording: all pieces of `classes` random classes, shuffled.

    Recordings have different classes as long as there are enough.

    Args:
        labels: the class of each piece.
    """
    names = sorted(set(labels))
    order = [name for _ in range(recordings) for name in rng.permutation(names)]
    groups = []
    for number in range(recordings):
        first = number * classes
        # a new round of classes begins where the old one has too few left
        first = first if first % len(names) + classes <= len(names) else -(-first // len(names)) * len(names)
        chosen = set(order[first : first + classes])
        groups.append(rng.permutation([i for i, label in enumerate(labels) if label in chosen]))
    return groups


def recompose(raw: hapt.Raw, recomposed: tuple[str, ...], classes: int | None):
    """Signals, annotations and splits of the new recordings.

    Args:
        recomposed: splits whose recordings are rejoined; the others stay as they are.
        classes: of a test recording, at most; None: all.
    """
    signals, tables, splits, people = {}, [], {}, {}
    for person in sorted(set(raw.people.values())):
        names = [name for name in raw.signals if raw.people[name] == person]
        split = raw.splits[names[0]]
        rng = np.random.default_rng([SEED, int(person[-2:]), 11])
        annotated = {name: raw.annotations[raw.annotations.recording == name] for name in names}
        if split not in recomposed:
            for name in names:
                signals[name] = raw.signals[name]
                tables.append(annotated[name])
                splits[name], people[name] = split, person
            continue
        parts = [part for name in names for part in pieces_of(raw.signals[name], annotated[name], rng)]  # pyright: ignore[reportArgumentType]
        groups = deal(len(parts), len(names), rng)
        if classes is not None and split == "test":
            labels = [raw.annotations.label[part.rows[0]] for part in parts]
            groups = deal_classes(labels, len(names), classes, rng)
        for number, group in enumerate(groups, 1):
            name = f"{person}_{number}"
            chosen = [parts[index] for index in group]
            offsets = np.cumsum([0, *(len(part.signal) for part in chosen[:-1])]) / hapt.RATE_HZ
            rows = raw.annotations.loc[np.concatenate([part.rows for part in chosen])]
            start, end = (
                np.concatenate([getattr(part, side) + shift for part, shift in zip(chosen, offsets)])
                for side in ("start", "end")
            )
            tables.append(rows.assign(recording=name, start=start, end=end))
            signals[name] = np.concatenate([part.signal for part in chosen])
            splits[name], people[name] = split, person
    return signals, pd.concat(tables, ignore_index=True), splits, people


def with_sides(raw: hapt.Raw, train: Collection[str], test: Collection[str]) -> hapt.Raw:
    """The recordings of these people alone, under another split."""
    sides = dict.fromkeys(train, "train") | dict.fromkeys(test, "test")
    people = {name: person for name, person in raw.people.items() if person in sides}
    return replace(
        raw,
        signals={name: raw.signals[name] for name in people},
        people=people,
        splits={name: sides[person] for name, person in people.items()},
    )


def load(root: Path, *, name: str, recomposed=("train", "test"), classes: int | None = None) -> Benchmark:
    """The benchmark; official split by person."""
    return _benchmark(hapt.read(root), name, recomposed, classes)


def _benchmark(raw, name, recomposed, classes):
    by_side = classes is not None or set(recomposed) != {"train", "test"}
    signals, annotations, splits, people = recompose(raw, recomposed, classes)
    recordings = pd.DataFrame(
        [
            {"recording": recording, "split": splits[recording], "duration": len(signal) / hapt.RATE_HZ}
            for recording, signal in signals.items()
        ]
    )
    features = {recording: hapt.window_features(signal) for recording, signal in signals.items()}
    by_statistics_of = partial(standardise, features, samples=hapt.WINDOW)
    official = by_statistics_of(recordings.recording[recordings.split == "train"])
    return Benchmark(
        name=name,
        classes=raw.classes,
        tious=hapt.TIOUS,
        feature_spec=hapt.SPEC,
        recordings=recordings,
        annotations=annotations,
        load_features=lambda recording: official.load(recording),
        source_hash=raw.hash,
        where=str(raw.path),
        inertial=official.inertial,
        people=people,
        folds=seeded_folds(raw.people.values()),
        standardise=by_statistics_of,
        resplit=(lambda train, test: _benchmark(with_sides(raw, train, test), name, recomposed, classes))
        if by_side
        else None,
    )
