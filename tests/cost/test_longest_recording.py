"""The experiment that runs the longest recording that fits, and the next length."""

import importlib.util

import pandas as pd
import pytest

from tal_lib import TalError
from tal_lib.cost import peak_within
from tal_lib.files import REPOSITORY
from tal_lib.reports.layout import Layout
from tal_lib.reports.tables import write_csv

spec = importlib.util.spec_from_file_location(
    "longest_recording", REPOSITORY / "experiments" / "longest_recording.py"
)
experiment = importlib.util.module_from_spec(spec)
spec.loader.exec_module(experiment)


def table(layout, steps, extrapolated=False, longest=36_864):
    rows = {"condition": "hapt_cpu", "model": "window_cnn", "limit_gb": 0.02, "steps": steps}
    rows |= {"longest_steps": longest}
    write_csv(pd.DataFrame([rows | {"extrapolated": extrapolated}]), layout.tables, "longest_recording")


@pytest.mark.parametrize("start", [60, 100, 101, 240])
def test_the_search_ends_between_two_neighbours(start):
    tried = dict(experiment.around(start, lambda steps: steps <= 100))
    longest = max(steps for steps, fits in tried.items() if fits)
    following = min(steps for steps, fits in tried.items() if not fits)
    assert longest <= 100 < following <= round(longest * experiment.STEP) + 1
    assert len(tried) < experiment.TRIES


def test_a_statement_is_verified_by_running_it(tmp_path, monkeypatch):
    """20 MB for the baseline at the shape of HAPT: the line through two peaks says how long it may be."""
    layout = Layout(tmp_path)
    short, long = (peak_within("window_cnn", 300, steps, num_classes=12) for steps in (500, 700))
    right = 500 + 200 * (20e6 - short) / (long - short)
    table(layout, right)
    rows = experiment.measure("window_cnn", 0.02, "hapt_cpu", layout)
    assert rows.holds.all() and set(rows.fits) == {True, False}
    assert (rows.fits == (rows.peak_memory_bytes <= 20e6)).all() and not rows[~rows.fits].fits_reserved.any()
    table(layout, 1.3 * right)
    line = lambda name, columns, steps, *limit, **more: int(20e6 + (long - short) / 200 * (steps - right))
    monkeypatch.setattr(experiment, "peak_within", line)
    assert not experiment.measure("window_cnn", 0.02, "hapt_cpu", layout).holds.any()
    table(layout, 0.9 * right, longest=right / 10)  # a bound, 0.8 times what fits
    rows = experiment.measure("window_cnn", 0.02, "hapt_cpu", layout)
    assert rows.holds.all() and rows.stated_steps.unique().tolist() == [round(8 * right / 10)]


def test_the_length_is_the_one_that_readers_see(tmp_path):
    for steps, extrapolated, seen in (
        (38_815.4, True, (38_000, False)),
        (13_219.0, False, (13_200, False)),
        (343_018.0, True, (294_912, True)),
    ):
        table(Layout(tmp_path), steps, extrapolated)
        assert experiment.stated("window_cnn", 0.02, "hapt_cpu", Layout(tmp_path)) == seen


def test_a_length_that_nobody_stated_is_refused(tmp_path):
    table(Layout(tmp_path), float("nan"))
    with pytest.raises(TalError, match="no length of window_cnn for 0.02 GB under hapt_cpu"):
        experiment.stated("window_cnn", 0.02, "hapt_cpu", Layout(tmp_path))
