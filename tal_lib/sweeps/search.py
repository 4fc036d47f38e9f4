"""A seeded random search as cells of a grid, and its best trial as the settings of other cells.

    search:
      trials: 8                                   # of every model; the first has the defaults
      seed: 0
      recipe:
        learning_rate: {log: [3.0e-4, 3.0e-3]}    # log-uniform
        exchange: {uniform: [0, 0.6]}
        rotate: [0, 15, 30]                       # one of these
      options: {drop_path: [0.0, 0.1, 0.2]}       # of the models that have such an option
      own: {local_global: {norm: [instance, layer]}}

Every model has the same number of trials, and the same draws for the settings that it shares with others
(Bergstra and Bengio, Random Search for Hyper-Parameter Optimization, JMLR 2012).

    tuned: tuning           # another sweep: its best trial of the cell's model and benchmark, at the nearest
                            # label fraction, gives the cell's recipe and options
    tuned: {sweep: tuning, fold: 0}                    # trials of this fold for the cells of every fold
    tuned: {sweep: tuning, fold: 0, benchmark: hapt}   # trials on this benchmark, for cells of another one

Only trials on a validation part count (`benchmark: hapt_validation`): no choice is made by test recordings.
The validation part of a fold is a quarter of the groups of the fold's training part. A trial on another fold
has seen the people that a cell tests on, so a cell takes trials of its own fold unless `fold` names one.
Settings that the grid itself gives take precedence.
"""

import json
import math
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tal_lib.data.folds import OFFICIAL
from tal_lib.data.registry import VALIDATION
from tal_lib.errors import TalError, short
from tal_lib.files import checked_name, file_state
from tal_lib.sweeps.ledger import current, read_ledger
from tal_lib.sweeps.versions import PATH as VERSIONS
from tal_lib.validation import Checked, Count, Fold, Seed, unknown_name

SEEDS = ("seed", "subset_seed")  # parameters whose runs are averaged to one trial
DIGITS = 3  # significant digits of drawn numbers, so that a cell's parameters can be read and typed
FORMS = "Write {log: [low, high]}, {uniform: [low, high]} or a list of values."


class NoTrial(TalError):
    """A ledger has no trial that could give a cell its settings."""


@dataclass(frozen=True, kw_only=True)
class Search(Checked):
    """The space of a random search; see the top of this file."""

    trials: Count
    seed: Seed = 0
    recipe: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    own: dict[str, dict[str, Any]] = field(default_factory=dict)

    def check(self):
        from tal_lib.models import config, every_name, presets
        from tal_lib.models.parts.detector import option_names

        for model in self.own:
            if model not in every_name():
                raise unknown_name(model, every_name(), where="search: own", name="model")
        if self.options:
            known = {
                name
                for model in every_name()
                for preset in presets(model)
                for name in option_names(config(model, preset))
            }
            for name in self.options:
                if name not in known:
                    raise unknown_name(name, sorted(known), where="search: options", name="option")
        spaces = [self.recipe, self.options, *self.own.values()]
        for name, space in ((name, space) for part in spaces for name, space in part.items()):
            _check_space(name, space)

    def drawn(self, model: str, preset: str) -> list[tuple[dict, dict]]:
        """(recipe, options) of each trial of a model. The first trial has the defaults."""
        from tal_lib.models import config
        from tal_lib.models.parts.detector import option_names

        known = option_names(config(model, preset))
        shared = {name: space for name, space in self.options.items() if name in known}
        trials: list[tuple[dict, dict]] = [({}, {})]
        for trial in range(1, self.trials):
            draw = lambda part: {name: self._value(name, space, trial) for name, space in part.items()}  # noqa: B023
            trials.append((draw(self.recipe), draw(shared | self.own.get(model, {}))))
        return trials

    def _value(self, name, space, trial):
        rng = np.random.default_rng([self.seed, trial, zlib.crc32(name.encode())])
        if isinstance(space, list):
            return space[rng.integers(len(space))]
        kind, (low, high) = next(iter(space.items()))
        if kind == "log":
            value = math.exp(rng.uniform(math.log(low), math.log(high)))
        else:
            value = rng.uniform(low, high)
        return float(f"{value:.{DIGITS}g}")


def _check_space(name, space):
    if isinstance(space, list) and space:
        return
    if isinstance(space, dict) and len(space) == 1:
        kind, bounds = next(iter(space.items()))
        if (
            kind in ("log", "uniform")
            and isinstance(bounds, list)
            and len(bounds) == 2
            and all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in bounds)
            and all(map(math.isfinite, bounds))
            and bounds[0] < bounds[1]
            and (kind == "uniform" or bounds[0] > 0)
        ):
            return
    raise TalError(f"search space of {name}: {short(space)}", remedy=FORMS)


@dataclass(frozen=True, kw_only=True)
class Tuned(Checked):
    """Which trials give a block's cells their settings."""

    sweep: str  # name of the search's sweep
    fold: Fold | None = None  # of the trials; None: the fold of each cell
    benchmark: str | None = None  # of the trials; None: the benchmark of each cell

    def check(self):
        checked_name(self.sweep, what="tuned: sweep")


@dataclass(frozen=True)
class Trial:
    """One finished trial of a search; `score` is the mean over its tIoUs and seeds."""

    benchmark: str
    model: str
    preset: str
    fraction: float
    fold: int
    recipe: dict
    options: dict
    score: float
    runs: int


def trials_of(ledger: str | Path) -> list[Trial]:
    """The finished trials of a search. Runs that differ in their seeds only are one trial.

    Of several results of the same cell (older code, older data) the newest counts. The ledger is read again
    only after it has changed: a grid asks for the trials once per cell.
    """
    return list(_trials(Path(ledger), file_state(ledger), file_state(VERSIONS)))


@lru_cache(maxsize=4)
def _trials(ledger, *states):
    scores: dict[str, list[float]] = {}
    for record in current(read_ledger(ledger).values()):
        p = record["parameters"]
        rows = record["tables"].get("data_efficiency", [])
        # never those of further benchmarks (`also`): their test recordings must not choose
        rows = [row for row in rows if row.get("benchmark", p.get("benchmark")) == p.get("benchmark")]
        if rows and "model" in p:
            key = json.dumps({name: value for name, value in p.items() if name not in SEEDS}, sort_keys=True)
            scores.setdefault(key, []).append(float(np.mean([row["map"] for row in rows])))
    return tuple(_trial(json.loads(key), values) for key, values in scores.items())


def _trial(parameters, scores):
    return Trial(
        **{
            name: parameters[name]
            for name in ("benchmark", "model", "preset", "fraction", "recipe", "options")
        },
        fold=parameters.get("fold", OFFICIAL),
        score=float(np.mean(scores)),
        runs=len(scores),
    )


def tuned(
    ledger: str | Path, benchmark: str, model: str, preset: str, fraction: float, fold: int = OFFICIAL
) -> Trial:
    """The best trial of a model on the validation part of a benchmark's fold, at the nearest label fraction.

    Nearest is by the ratio of the fractions; of two that are equally near, the larger. Of equal scores, the
    trial with fewer settings.

    Args:
        benchmark: a benchmark, or its validation part (`hapt` and `hapt_validation` mean the same).

    Raises:
        NoTrial: the search has no trial of the model on the validation part of the benchmark's fold.
    """
    part = benchmark.removesuffix(VALIDATION) + VALIDATION
    trials = [trial for trial in trials_of(ledger) if (trial.model, trial.preset) == (model, preset)]
    known = [trial for trial in trials if (trial.benchmark, trial.fold) == (part, fold)]
    if not known:
        raise NoTrial(
            f"no trial of {model} ({preset}) on {part}" + (f", fold {fold}" if fold != OFFICIAL else ""),
            where=ledger,
            remedy=_other_trials(trials, part, Path(ledger).stem),
        )
    near = min({trial.fraction for trial in known}, key=lambda f: (abs(math.log(f / fraction)), -f))
    best_first = lambda trial: (
        -trial.score,
        len(trial.recipe) + len(trial.options),
        json.dumps(trial.recipe),
    )
    return min((trial for trial in known if trial.fraction == near), key=best_first)


def _other_trials(trials, part, sweep):
    """The remedy where a model has no trial on a validation part: what the search has instead."""
    whole = part.removesuffix(VALIDATION)
    if folds := sorted({trial.fold for trial in trials if trial.benchmark == part}):
        shown, first = ", ".join(map(str, folds)), min(folds, key=lambda fold: (fold == OFFICIAL, fold))
        return f"Its trials are of fold {shown}. To use them write tuned: {{sweep: {sweep}, fold: {first}}}."
    if any(trial.benchmark == whole for trial in trials):
        return f"Its trials on {whole} were scored on test recordings. Search on {part} instead."
    names = sorted({trial.benchmark for trial in trials if trial.benchmark.endswith(VALIDATION)})
    names = [name.removesuffix(VALIDATION) for name in names]
    if names:
        return (
            f"Run the grid {sweep} with it first (the study's: tal sweep {sweep}); or use its trials on "
            f"{', '.join(names)}: write tuned: {{sweep: {sweep}, benchmark: {names[0]}}}."
        )
    return f"Run the grid {sweep} with it first (the study's: tal sweep {sweep})."


def expected_best(scores) -> np.ndarray:
    """Expected best score of the first 1 … N of N trials in random order.

    Source: Dodge et al., Show Your Work (EMNLP 2019), equation 5, with draws without replacement (as in
    Tang et al., Showing Your Work Doesn't Always Work, ACL 2020), which is unbiased.
    """
    ordered = np.sort(np.asarray(scores, dtype=float))
    n = len(ordered)
    expected = []
    for budget in range(1, n + 1):
        # the i-th smallest is the best of the draw if the others are below it
        ways = np.array([math.comb(index, budget - 1) for index in range(n)]) / math.comb(n, budget)
        expected.append(float((ways * ordered).sum()))
    return np.array(expected)
