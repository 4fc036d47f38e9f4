"""Checks of a benchmark: a full list of problems for its author, and a test before each training."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from tal_lib.data.benchmark import Benchmark
from tal_lib.data.registry import load_benchmark
from tal_lib.data.remarks import ALL, LONGEST_LISTED, Remark, length_remarks
from tal_lib.errors import TalError
from tal_lib.files import write_json
from tal_lib.validation import validate
from tal_lib.writing import remove_replaceable

Missing = Literal["error", "skip"]
FAULTS = ("missing", "broken")  # kinds that stop a training; the others are remarks
MISSING_LIST = "missing_features.json"


@dataclass(frozen=True)
class Ready:
    """The recordings that a training can use."""

    train: list[str]
    test: list[str]
    missing_train: list[str]  # recordings without features, which are left out
    missing_test: list[str]
    remarks: tuple[Remark, ...]  # about all recordings: labels, splits, times

    def report(self) -> list[str]:
        """What the user should know before the training, one line per remark."""
        lines = [f"{remark.kind}: {remark}" for remark in self.remarks]
        if self.counts:
            missing = len(self.missing_train), len(self.missing_test)
            lines.append(
                f"missing: {missing[0]:,} of {missing[0] + len(self.train):,} training and {missing[1]:,} of "
                f"{missing[1] + len(self.test):,} test recordings have no features and are left out"
            )
        return lines

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of recordings that were left out, for a row of results. Empty if there are none."""
        if not self.missing_train and not self.missing_test:
            return {}
        return {"missing_train": len(self.missing_train), "missing_test": len(self.missing_test)}


def ready(benchmark: Benchmark, recordings: Iterable[str] | None, missing: Missing = "error") -> Ready:
    """The usable recordings among `recordings` and the test split, checked before the first training step.

    All feature files are read once, so that a damaged file does not stop a run after hours.

    Args:
        recordings: to train on; None: the benchmark is only tested.
        missing: what to do about recordings without features: `error`, or `skip`, as is usual in the field.

    Raises:
        TalError: no training or test recording is left, none of them is annotated, or features are missing
            (with `error`) or broken, or most features last longer or shorter than their recordings.
    """
    missing = validate(Missing, missing, name="missing")
    where = benchmark.name
    needed = {"train": "training", "test": "test"} if recordings is not None else {"test": "test"}
    for split in needed:
        if split not in benchmark.splits:
            raise TalError(
                f"no recording of subset {split} (there are {', '.join(benchmark.splits)})",
                where=where,
                remedy="Name the subsets training and testing, or training and validation.",
            )
    parts = {"train": list(recordings or ()), "test": benchmark.recordings("test")}
    absent = {
        split: benchmark.files.missing(names) if benchmark.files else [] for split, names in parts.items()
    }
    if (absent["train"] or absent["test"]) and missing == "error":
        first = (absent["train"] + absent["test"])[0]
        raise TalError(
            f"{len(absent['train']):,} of {len(parts['train']):,} training and {len(absent['test']):,} of "
            f"{len(parts['test']):,} test recordings have no features (first {first})",
            where=benchmark.files.folder,  # pyright: ignore[reportOptionalMemberAccess]
            remedy="Put them there, or leave those recordings out: `--missing skip` of `tal train`, or the "
            "parameter missing: skip of a notebook or grid. `tal data check` lists them.",
        )
    used = {
        split: [name for name in names if name not in set(absent[split])] for split, names in parts.items()
    }
    for split, what in needed.items():
        if not used[split]:
            raise TalError(
                f"no {what} recording" + (" has features" if absent[split] else ""),
                where=where,
                remedy="Put features there."
                if absent[split]
                else "Raise the fraction, or check the annotations.",
            )
        if not len(benchmark.annotations_of(used[split])):
            raise TalError(
                f"none of the {len(used[split]):,} {what} recordings has an annotated segment",
                where=where,
                remedy="Raise the fraction, or check the annotations.",
            )
    remarks = [remark for remark in benchmark.notes if remark.recording == ALL]
    if benchmark.files:
        names, off = list(dict.fromkeys(used["train"] + used["test"])), []
        trained = set(used["train"])
        for name in names:
            held = benchmark.holds(name)
            off += _time_axis(benchmark, name, len(benchmark.features(name)))
            if not held and name not in trained:
                benchmark.forget(name)
        remarks += _time_axes(off, len(names), where)
    return Ready(used["train"], used["test"], absent["train"], absent["test"], tuple(remarks))


def _time_axis(benchmark, recording, steps):
    """A remark if the features cover another time than the recording lasts."""
    stride_s, window_s = benchmark.time_axis(recording)
    covered, duration = (steps - 1) * stride_s + window_s, benchmark.duration(recording)
    if abs(covered - duration) > max(5.0, 0.1 * duration):
        yield Remark(recording, "suspect", f"{steps} steps cover {covered:.1f} s of {duration:.1f} s")


def _time_axes(off, count, where):
    """One remark on the recordings whose time axis is off; refused if most of them are."""
    if 2 * len(off) > count:
        raise TalError(
            f"the features of {len(off):,} of {count:,} recordings differ in duration from the recordings "
            f"(first {off[0].recording}: {off[0].text})",
            where=where,
            remedy="Check stride and frame rate in features/spec.json, and that durations are in seconds.",
        )
    if off:
        first = f"first {off[0].recording}: {off[0].text}"
        yield Remark(
            ALL, "suspect", f"{len(off):,} recordings last longer or shorter than their features ({first})"
        )


def write_missing(folder: str | Path, checked: Ready) -> Path | None:
    """Write the list of recordings that were left out into a run's folder.

    None if there are none; the list of an earlier run is then removed.
    """
    path = Path(folder) / MISSING_LIST
    if not checked.counts:
        remove_replaceable(path)
        return None
    lists = {"train": checked.missing_train, "test": checked.missing_test}
    return write_json(path, lists)


def check_benchmark(name: str, root: str | Path | None = None) -> pd.DataFrame:
    """Load every recording. One row per problem or remark: `recording, kind, problem`."""
    benchmark = load_benchmark(name, root)
    remarks = [*benchmark.notes, *length_remarks(benchmark.annotations()), *fold_remarks(benchmark)]
    for recording in benchmark.recordings():
        remarks += _check_features(benchmark, recording)
    rows = [(remark.recording, remark.kind, remark.text) for remark in remarks]
    return pd.DataFrame(rows, columns=["recording", "kind", "problem"])


def fold_remarks(benchmark: Benchmark) -> list[Remark]:
    """A remark on each fold whose test or training part has no segment of some classes.

    A class without test segments has no average precision: the fold's mAP is the mean over the others.
    """
    annotations, remarks = benchmark.annotations(), []
    groups = annotations.recording.map({name: benchmark.group(name) for name in benchmark.recordings()})
    classes = set(annotations.label)
    for number, tested in enumerate(benchmark.folds):
        inside = groups.isin(tested)
        for part, labels, effect in (
            ("test", set(annotations.label[inside]), "mAP is the mean over the other classes"),
            ("training", set(annotations.label[~inside]), "no model can learn them"),
        ):
            if lacking := sorted(classes - labels):
                shown = ", ".join(lacking[:LONGEST_LISTED]) + ", …" * (len(lacking) > LONGEST_LISTED)
                count = f"{len(lacking)} class" + "es" * (len(lacking) > 1)
                text = f"fold {number}: the {part} part has no segment of {count} ({shown}): {effect}"
                remarks.append(Remark(ALL, "folds", text))
    return remarks


def _check_features(benchmark, recording):
    if benchmark.files and benchmark.files.folder.is_dir() and benchmark.files.missing([recording]):
        yield Remark(recording, "missing", "no feature file")
        return
    try:
        steps = len(benchmark.features(recording))
        benchmark.forget(recording)
    except TalError as error:
        yield Remark(recording, "broken", str(error))
        return
    if benchmark.files and benchmark.files.ambiguous(recording):
        yield Remark(
            recording,
            "suspect",
            f"as many steps as columns ({steps}): read as (steps, columns), it may be turned",
        )
    yield from _time_axis(benchmark, recording, steps)


def summary(problems: pd.DataFrame, most: int | None = 10) -> list[str]:
    """The lines of a report on `check_benchmark`'s rows: the first `most` of each kind (None: all), then
    counts."""
    lines = []
    for kind, rows in problems.groupby("kind", sort=False):
        shown = rows if most is None else rows.head(most)
        lines += [
            f"{kind}: {row.recording}: {row.problem}"  # pyright: ignore[reportAttributeAccessIssue]
            for row in shown.itertuples(index=False)
        ]
        if len(rows) > len(shown):
            lines.append(f"{kind}: … and {len(rows) - len(shown):,} more (--all lists them)")
    counts = problems.kind.value_counts()
    return lines + [f"{count:6,} {kind}" for kind, count in counts.items()]
