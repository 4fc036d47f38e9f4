"""Tables of zero-shot localization: which runs count, and under which names."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tal_lib.evaluation.nested import holm
from tal_lib.reports import tables, unseen, variants
from tal_lib.reports.figures import accuracy
from tal_lib.reports.layout import Layout
from tal_lib.reports.output import Output


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


def test_runs_of_two_recipes_are_not_averaged(runs):
    both = pd.concat([runs, pd.DataFrame(_rows(0.8, options="text=glove", recipe="epochs=6"))])
    table = tables.open_set_table(tables.open_set_summary(both), "hapt").set_index("model")
    assert table.unseen.to_dict() == {
        "stale (text=glove) (default recipe)": "50.0",
        "stale (text=glove) (epochs=6)": "80.0",
        "stale (text=words)": "30.0",
    }


def test_the_figure_counts_splits_without_the_arm_that_was_trained_with_wrong_names(runs):
    axes = accuracy.open_set(tables.open_set_summary(runs))
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["stale, words (n = 2)", "stale, glove (n = 1)"]
    assert "Trained with wrong names: n = 1." in " ".join(axes.figure.get_supxlabel().split())


def test_the_advice_shows_what_wrong_names_give(runs):
    ((_, use, because, table),) = unseen.answers(runs)
    assert use == "stale (text=glove) or stale (text=words)"  # one common split tells nothing
    assert because == (
        "2 of 2 cannot be told apart (30.0 to 50.0 avg mAP on unseen classes), 75/25 seen/unseen, untuned. "
        "Under wrong names 15.0 to 25.0."
    )
    assert table == "open_set_hapt"
    assert unseen.answers(runs[runs.misnamed]) == [] == unseen.answers(runs.iloc[:0])


def test_models_are_compared_on_the_splits_that_both_have():
    """A hard split lowers both models: paired, a small difference is told apart; its size alone is not."""
    easy = np.linspace(10, 60, 10)
    jitter = np.where(np.arange(10) % 2, 0.5, -0.5)
    scores = pd.DataFrame({"b": easy + 2 + jitter, "a": easy, "c": easy[::-1], "d": easy - 20 + jitter})
    compared = unseen.beside_the_best(scores)
    assert list(compared.index) == ["b", "a", "c", "d"] and np.isnan(compared.p_adjusted["b"])
    assert compared.p_adjusted["a"] < 0.001 < 0.5 < compared.p_adjusted["c"]
    pairs = [stats.ttest_rel(scores.b, scores[name]).pvalue for name in "acd"]
    assert compared.p_adjusted[["a", "c", "d"]].to_numpy() == pytest.approx(holm(pairs))
    few = scores.assign(a=scores.a.where(scores.index < 2))
    assert unseen.beside_the_best(few).p_adjusted["a"] == 1.0
    same = unseen.beside_the_best(pd.DataFrame({"a": easy, "b": easy, "c": easy - 1}))
    assert same.p_adjusted["b"] == 1.0 and same.p_adjusted["c"] == 0.0


def test_a_model_that_is_told_apart_is_no_answer(runs):
    rows = [
        row
        for split in range(5)
        for text, score in (("glove", 0.5), ("words", 0.2 + split / 100), ("minilm", 0.49 + split / 100))
        for row in _rows(score, options=f"text={text}", split=split)
    ]
    ((_, use, because, _),) = unseen.answers(pd.DataFrame(rows))
    assert use == "stale (text=minilm) or stale (text=glove)"
    assert because.endswith("Next: stale (text=words) 22.0.")


def test_a_benchmark_with_few_labels_and_half_of_the_classes_has_an_answer_too(runs):
    """Another benchmark with more of both does not hide it."""
    both = pd.concat([runs, runs.assign(benchmark="urfall", seen=0.5, fraction=0.1)])
    (first, *_), (second, _, because, _) = unseen.answers(both)
    assert "(hapt)" in first and "(urfall)" in second
    assert "50/50 seen/unseen, 10 % of the labels, untuned." in because


def caption_of(runs, tmp_path):
    """The caption of the table of a benchmark."""
    out = Output(Layout(tmp_path / "results", tmp_path / "figures"), "open_set")
    variants.write_open_set({"open_set": runs}, out)
    (page,) = (path for path in out.tables if path.suffix == ".md")
    return page.read_text().partition("\n")[0]


def test_the_caption_names_models_of_older_code(runs, tmp_path):
    assert "older code" not in caption_of(runs, tmp_path)
    older = runs.options.isin(["", "text=words"])
    caption = caption_of(runs.assign(older=older), tmp_path)
    assert caption.endswith("so do not compare these models: stale (text=words).")
    assert "(1 split)." in caption
    some = caption_of(runs.assign(older=older & (runs.split == 0)), tmp_path)
    assert some == caption


def test_features_that_know_the_unseen_classes_are_told_and_advise_nothing(runs, tmp_path):
    salads = runs.assign(benchmark="50salads")
    assert "not strictly: its features were trained with all classes" in caption_of(salads, tmp_path)
    assert unseen.answers(runs) and not unseen.answers(salads)
