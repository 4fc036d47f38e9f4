"""Open-set localization: train on seen classes, detect unseen classes by name.

The training data is a separate benchmark, made before training begins. It has the seen classes only. Its
recordings are those without any unseen segment, or the clips between unseen segments. So training cannot use
unseen classes.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tal_lib.data.benchmark import Benchmark
from tal_lib.data.subsets import open_set_split, published_open_set_split
from tal_lib.data.views import relabelled, view, whole
from tal_lib.errors import TalError

PUBLISHED = ("thumos14", "activitynet")  # the literature has ten splits of each
SHORTEST_S = 5.0  # minimum length of a training clip


@dataclass(frozen=True)
class OpenSet:
    """The benchmarks of one class split."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    train: Benchmark  # seen classes; `train` recordings without any unseen segment
    test: Benchmark  # unseen classes; `test` recordings that have some
    test_all: Benchmark  # all classes, all `test` recordings: generalized evaluation


def class_split(benchmark: Benchmark, seen: float, draw: int, root=None) -> tuple[list[str], list[str]]:
    """Seen and unseen classes: one of the ten published splits if there are any, else random by seed."""
    if benchmark.name in PUBLISHED:
        return published_open_set_split(benchmark, seen, draw, root)
    return open_set_split(benchmark, seen, draw)


def open_set(benchmark: Benchmark, seen, unseen, keep: str = "recordings") -> OpenSet:
    """Split a benchmark by classes.

    Where features are standardised, their mean and deviation are over all steps of the recordings that give
    training data; where those of the official split are fixed, of its training part. So steps of unseen
    classes can be among them, without their labels.

    Args:
        keep: the training data. `recordings`: training recordings without any unseen class. `stretches`: the
            clips between unseen segments, each as a recording `<id>#<number>` with the features of its steps.
            Use it where every recording has most classes.

    Raises:
        TalError: a class is on both sides, on none, or unknown; no recording is left to train on; no unseen
            segment to test on.
    """
    seen, unseen = tuple(seen), tuple(unseen)
    odd = set(seen) & set(unseen) | set(benchmark.classes) ^ (set(seen) | set(unseen))
    if odd:
        raise TalError(
            f"class {sorted(odd)[0]!r} must be in exactly one of the two lists, seen and unseen",
            where=benchmark.name,
            remedy="Take both lists from class_split.",
        )
    if keep not in ("recordings", "stretches"):
        raise TalError(f"unknown value of keep {keep!r}", remedy="Choose from recordings, stretches.")
    train, test = benchmark.annotations("train"), benchmark.annotations("test")
    if keep == "recordings":
        touched = set(train.recording[train.label.isin(unseen)])
        pieces = [
            (name, name, 0.0, benchmark.duration(name))
            for name in benchmark.recordings("train")
            if name not in touched
        ]
    else:
        hidden = train[train.label.isin(unseen)]
        pieces = [
            (f"{name}#{number}", name, start, end)
            for name in benchmark.recordings("train")
            for number, (start, end) in enumerate(_free(benchmark, name, hidden[hidden.recording == name]))
        ]
    benchmark = benchmark.learning_from([recording for _, recording, _, _ in pieces]) if pieces else benchmark
    learn = _pieces(benchmark, pieces, train[train.label.isin(seen)], seen) if pieces else None
    if learn is None or not len(learn.annotations()):
        raise TalError(
            "no seen segment is left to train on",
            where=f"{benchmark.name}, {len(unseen)} unseen classes",
            remedy="Use keep='stretches', or more seen classes.",
        )
    unseen_segments = test[test.label.isin(unseen)]
    if not len(unseen_segments):
        raise TalError("no unseen segment to test on", where=benchmark.name, remedy="Choose another split.")
    return OpenSet(
        seen,
        unseen,
        learn,
        _test(benchmark, unseen_segments, unseen, set(unseen_segments.recording)),
        _test(benchmark, test, benchmark.classes, benchmark.recordings("test")),
    )


def shuffled_names(benchmark: Benchmark, seed: int) -> tuple[Benchmark, dict[str, str]]:
    """The benchmark under permuted class names, and {true name: new name}; it shows what names contribute."""
    rng, count = np.random.default_rng([seed, 51]), len(benchmark.classes)
    while ((order := rng.permutation(count)) == np.arange(count)).any():
        pass
    new_names = {name: benchmark.classes[i] for name, i in zip(benchmark.classes, order)}
    table = benchmark.annotations()
    renamed = table.assign(label=table.label.map(new_names))
    return relabelled(benchmark, renamed, benchmark.classes, ["shuffled", seed]), new_names


def _free(benchmark, recording, excluded):
    """Clips (start s, end s) of a recording between the `excluded` segments. No step of a clip sees an
    excluded segment."""
    stride_s, window_s = benchmark.time_axis(recording)
    stretches, at = [], 0.0
    end_of_all = benchmark.duration(recording)
    for start, end in [
        *excluded[["start", "end"]].sort_values("start").itertuples(index=False),
        (end_of_all, end_of_all),
    ]:
        if start - at >= max(SHORTEST_S, window_s + stride_s):
            stretches.append((at, float(start)))
        at = max(at, float(end))
    return stretches


def _pieces(benchmark, pieces, annotations, classes):
    """A benchmark of clips (new id, recording, start s, end s), all in the split `train`."""
    rows, segments, spans = [], [], {}
    for piece, recording, start, end in pieces:
        stride_s, window_s = benchmark.time_axis(recording)
        whole = start == 0 and end == benchmark.duration(recording)
        first = int(np.ceil(start / stride_s - 1e-9))  # steps whose windows lie inside
        last = None if whole else int(np.floor((end - window_s) / stride_s + 1e-9)) + 1
        offset, length = first * stride_s, end - first * stride_s
        spans[piece] = recording, slice(first, last)
        rows.append(
            {
                "recording": piece,
                "split": "train",
                "duration": length,
                "stride_s": stride_s,
                "window_s": window_s,
            }
        )
        annotated = annotations[annotations.recording == recording]
        kept = annotated.assign(
            recording=piece,
            start=(annotated.start - offset).clip(0, length),
            end=(annotated.end - offset).clip(0, length),
        )
        segments.append(kept[kept.end - kept.start > 0.5 * (annotated.end - annotated.start)])
    table = pd.DataFrame(rows, columns=["recording", "split", "duration", "stride_s", "window_s"])

    def features(piece):
        recording, steps = spans[piece]
        return benchmark.features(recording)[steps]

    def part(piece, first, last):
        recording, steps = spans[piece]
        begin, end, _ = steps.indices(benchmark.steps(recording))
        return benchmark.part(recording, begin + first, min(begin + last, end))

    def count(piece):
        recording, steps = spans[piece]
        return len(range(*steps.indices(benchmark.steps(recording))))

    loaders = {"load_features": features, "load_part": part, "count_steps": count}
    return view(
        benchmark, table, pd.concat(segments, ignore_index=True), classes, loaders, ["pieces", pieces]
    )


def _test(benchmark, annotations, classes, recordings):
    table = benchmark.table()
    return view(
        benchmark,
        table[table.recording.isin(recordings)].assign(split="test"),
        annotations,
        classes,
        whole(benchmark),
        ["test"],
    )
