"""Tables of zero-shot classes: which runs count, and under which names."""

import pandas as pd
import pytest

from tal_lib.reports import advice, tables
from tal_lib.reports.figures import accuracy


def _rows(score, **settings):
    """Rows of one cell: right names score `score`, wrong ones half of it."""
    cell = {
        "benchmark": "hapt",
        "fold": -1,
        "model": "stale",
        "preset": "compact",
        "options": "",
        "recipe": "",
        "keep": "stretches",
        "seen": 0.75,
        "misnamed": False,
        "split": 0,
        "fraction": 1.0,
        "seed": 0,
        "utc": "2026-11-01T00:00:00Z",
    } | settings
    cell["cell"] = str(sorted(cell.items()))
    parts = {"unseen": score, "unseen, wrong names": score / 2}
    return [cell | {"part": part, "tiou": 0.5, "map": value} for part, value in parts.items()]


@pytest.fixture
def runs():
    later = {"options": "text=words", "utc": "2026-11-02T00:00:00Z"}
    return pd.DataFrame(
        _rows(0.9)  # the same settings as the next: the default encoder is `words`
        + _rows(0.2, **later)
        + _rows(0.4, **later, split=1)
        + _rows(0.1, misnamed=True)
        + _rows(0.5, options="text=glove")
    )


def test_the_default_encoder_is_named_and_the_latest_of_equal_cells_counts(runs):
    for order in (runs, runs[::-1]):
        table = tables.open_set_table(tables.open_set_summary(order), "hapt").set_index("model")
        assert list(table.index) == ["stale (text=glove)", "stale (text=words)"]
        assert table.loc["stale (text=words)", ["unseen", "splits"]].tolist() == ["30.0", 2]
        assert table.loc["stale (text=words)", "unseen, trained with wrong names"] == "10.0"


def test_the_figure_counts_splits_without_the_arm_that_was_trained_with_wrong_names(runs):
    axes = accuracy.open_set(tables.open_set_summary(runs))
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["stale, words (n = 2)", "stale, glove (n = 1)"]
    assert "Trained with wrong names: n = 1." in " ".join(axes.figure.get_supxlabel().split())


def test_the_advice_shows_what_wrong_names_give(runs):
    rows = []
    advice._unseen_classes(lambda name: runs, lambda *row: rows.append(row))
    assert [(row[1], row[2]) for row in rows] == [
        ("stale (text=glove)", "50.0 avg mAP on unseen classes, 75/25 seen/unseen. Under wrong names 25.0."),
    ]
