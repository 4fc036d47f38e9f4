"""Other benchmarks on which a model of one benchmark is tested too, without training again.

A model trained on a fold of `hapt` can be tested on the same fold of `hapt_recomposed_test`: the same people,
in another order. The model reads the other features as it learned them: with the same columns, at the same
steps, standardised by the statistics of its own training recordings (`Benchmark.standardised_as`).
"""

from collections.abc import Iterable

from tal_lib.data.benchmark import Benchmark
from tal_lib.data.checks import Missing, ready
from tal_lib.data.registry import load_benchmark, portable_name
from tal_lib.errors import TalError


def also_tested(
    benchmark: Benchmark, names: Iterable[str], *, fold: int = -1, skip: int = 1, missing: Missing = "error"
) -> dict[str, tuple[Benchmark, list[str]]]:
    """Name → other benchmark and its test recordings. Everything is checked before the training.

    Args:
        benchmark: what the model is trained on, in its fold.
        fold, skip, missing: as for that benchmark.

    Raises:
        TalError: a benchmark, or its fold, that does not exist; other classes, columns or steps; a test
            recording, or a test person, of the benchmark's training part; a name given twice.
    """
    others = {}
    for given in names:
        name = portable_name(given)
        if name in others or name == benchmark.name:
            raise TalError(
                f"also: {name} is tested already", where=benchmark.name, remedy="Name each benchmark once."
            )
        other = load_benchmark(given, fold=fold).every(skip)
        _check_features(benchmark, other)
        _check_nobody_is_known(benchmark, other)
        others[name] = other.standardised_as(benchmark), ready(other, None, missing).test
    return others


def _check_features(benchmark, other):
    """Raise `TalError` unless a model of `benchmark` fits the features and the classes of `other`."""
    for what, ours, theirs in (
        ("classes", benchmark.classes, other.classes),
        ("columns", dict(benchmark.feature_spec.streams), dict(other.feature_spec.streams)),
        ("seconds between steps", benchmark.feature_spec.stride_s, other.feature_spec.stride_s),
        ("seconds that a step sees", benchmark.feature_spec.window_s, other.feature_spec.window_s),
    ):
        if ours != theirs:
            raise TalError(
                f"also: {other.name} has other {what} than {benchmark.name}: "
                f"{_short(theirs)}, not {_short(ours)}",
                remedy="Test on benchmarks with the same features and classes.",
            )


def _short(value):
    return f"{len(value)} ({', '.join(value[:3])}, …)" if isinstance(value, tuple) else f"{value}"


def _check_nobody_is_known(benchmark, other):
    """Raise `TalError` if a test recording or person of `other` is in the training part of `benchmark`."""
    learned = benchmark.recordings("train")
    tested = other.recordings("test")
    known = sorted(set(tested) & set(learned))
    if not known and benchmark.people and other.people:
        people = {benchmark.group(name) for name in learned}
        known = sorted({other.group(name) for name in tested} & people)
    if known:
        raise TalError(
            f"also: {other.name} tests on {known[0]}, of the training part of {benchmark.name}"
            + (f", {benchmark.partition}" if benchmark.partition else ""),
            remedy="Use benchmarks whose folds have the same test people.",
        )
