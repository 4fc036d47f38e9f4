import numpy as np
import pandas as pd
import pytest

from tal_lib.reports import efficiency, figures
from tal_lib.reports.efficiency.prior import write_prior
from tal_lib.reports.efficiency.runs import (
    about_recipes,
    collapsed_runs,
    default_recipes,
    own_recipes,
    unequal_first,
)
from tal_lib.reports.layout import Layout
from tal_lib.reports.output import Output

FRACTIONS = (0.1, 0.2, 0.4, 0.6, 1.0)


def runs(models=("local_global", "bilstm"), seeds=(0, 1, 2), recipe="", subset_seed=-1, more=0.0):
    """One row a run: models differ by 5 points, seeds by 1, on a power law of the segments."""
    rows = [
        {
            "benchmark": "b",
            "model": model,
            "preset": "compact",
            "options": "",
            "recipe": recipe,
            "stream": "",
            "fraction": fraction,
            "seed": seed,
            "subset_seed": subset_seed,
            "train_recordings": 40 * fraction,
            "train_segments": 750 * fraction,
            "avg_map": 95 - 5 * place - 40 * (7.5 * fraction) ** -0.8 + seed + more,
        }
        for place, model in enumerate(models)
        for fraction in FRACTIONS
        for seed in seeds
    ]
    return pd.DataFrame(rows)


def test_the_largest_whole_block_is_compared():
    half = runs(("tridet",), seeds=(0, 1))
    extra = runs(("local_global",), seeds=(0, 1, 2)).assign(fraction=0.5)
    block = efficiency.complete(pd.concat([runs(), half, extra]))
    assert set(block.model) == {"local_global", "bilstm", "tridet"} or len(block) == 30  # either is 30 runs
    assert set(block.fraction) == set(FRACTIONS)
    assert len(efficiency.complete(pd.concat([runs(("a", "b", "c", "d")), half]))) == 60


def test_shares_that_few_models_have_are_not_compared():
    extra = runs(("local_global",)).assign(fraction=0.5)
    table = pd.concat([runs(("local_global", "bilstm", "tridet")), extra])
    assert set(efficiency.compared(table).fraction) == set(FRACTIONS)
    other = pd.concat([table, extra.assign(benchmark="alone")])  # there it is all that is there
    assert set(efficiency.compared(other)[lambda rows: rows.benchmark == "alone"].fraction) == {0.5}


def test_aggregate_ranking_and_comparison_of_models_that_differ_by_five_points():
    table = efficiency.aggregate_ranking(runs())
    assert list(table.model) == ["local_global", "bilstm"] and list(table["rank"]) == [1, 2]
    assert table.iqm[0] - table.iqm[1] == pytest.approx(5)
    pair = efficiency.comparison(runs()).set_index(["model", "other"])
    assert pair.probability["local_global", "bilstm"] == 1 and pair.probability["bilstm", "local_global"] == 0
    assert (
        pair.difference["local_global", "bilstm"] == pytest.approx(5)
        and pair.pairs["local_global", "bilstm"] == 15
    )


def test_the_best_other_model_is_found_at_each_fraction():
    table = efficiency.against_the_best(runs(("afsd", "local_global", "bilstm")))
    assert list(table.fraction) == list(FRACTIONS) and set(table.best) == {"afsd"}
    assert table.difference.to_numpy() == pytest.approx(np.full(5, -5.0)) and (table.probability == 0).all()
    assert efficiency.against_the_best(runs(("afsd",))).empty


def test_a_power_law_foretells_what_follows_it():
    table = efficiency.annotation(runs()).set_index("model")
    assert table.error.abs().max() < 0.5 and (table["no_gain"] < -1).all()
    assert table.needs_80["local_global"] < table.needs_80["bilstm"] < np.inf
    assert np.isinf(table.needs_90["bilstm"])


def test_a_recipe_is_compared_on_the_same_recordings():
    both = pd.concat([runs(), runs(("local_global",), seeds=(1, 2, 3), recipe="rotate=15", more=2.0)])
    table = efficiency.recipe_gains(both)
    assert set(table.model) == {"local_global"} and (table.pairs == 2).all()
    assert table.difference.to_numpy() == pytest.approx(np.full(5, 2.0))


def test_arms_do_not_count_as_runs_of_the_main_study():
    table = pd.concat([runs(), runs(recipe="min_steps=660"), runs(subset_seed=0)]).rename(
        columns={"avg_map": "map"}
    )
    assert len(efficiency.main_arm(table)) == len(runs())


def test_tuned_models_are_all_in_the_main_arm():
    """No settings have more than half of the models: each model's most frequent ones count."""
    tuned = [runs((name,), recipe=f"learning_rate={rate}") for name, rate in (("a", 1), ("b", 2), ("c", 3))]
    rare = runs(("a",), seeds=(0,), recipe="learning_rate=9")
    table = pd.concat([*tuned, rare])
    chosen = efficiency.main_arm(table)
    assert set(chosen.model) == {"a", "b", "c"} and "learning_rate=9; " not in set(chosen.recipe)
    assert own_recipes(chosen) and not default_recipes(chosen)
    assert about_recipes(chosen, "x") == "Unequal, each model by its own recipe: x"
    first, second, third = tuned
    options = [first.assign(recipe="", options=""), second.assign(options="dropout=0.1"), third]
    chosen = efficiency.main_arm(pd.concat(options))  # the best trial of the first has the defaults
    assert set(chosen.model) == {"a", "b", "c"} and set(chosen.options) == {""} and own_recipes(chosen)
    every = pd.concat([table.assign(options=f"dropout={place}") for place, table in enumerate(tuned)])
    assert set(efficiency.main_arm(every).model) == {"a", "b", "c"}  # no run has the default options
    plain = runs(("a", "b", "c"), recipe="min_steps=400")
    both = efficiency.main_arm(pd.concat([*tuned, plain]))
    assert set(both.recipe) == {"min_steps=400"} and not own_recipes(both)  # all have it


def test_the_prior_study_ranks_what_both_have():
    summary = pd.DataFrame(
        [
            (model, fraction, value)
            for fraction in (0.1, 1.0)
            for model, value in (("actionformer", 80), ("temporalmaxer", 70), ("gaf", 90))
        ],
        columns=["model", "fraction", "mean"],
    )
    table = efficiency.beside_prior(summary)
    assert set(table.model) == {"actionformer", "temporalmaxer"}
    first = table[table.fraction == 0.1].set_index("model")
    assert dict(first.ours) == {"actionformer": 80, "temporalmaxer": 70}
    assert first["map"]["actionformer"] == 4.55 < first["map"]["temporalmaxer"]


def test_a_collapsed_run_changes_the_order_of_means_and_not_that_of_medians(tmp_path):
    scores = {"temporalmaxer": [70, 70, 70], "actionformer": [69, 69, 10], "tadtr": [60, 60, 60]}
    every = pd.DataFrame(
        [(model, 1.0, value) for model, values in scores.items() for value in values],
        columns=["model", "fraction", "avg_map"],
    ).assign(recipe="")
    summary = every.groupby(["model", "fraction"], as_index=False).avg_map.mean()
    summary = summary.rename(columns={"avg_map": "mean"}).assign(low=0.0, high=100.0)
    layout = Layout(tmp_path / "results", tmp_path / "figures")
    write_prior(summary, every, "b", Output(layout))
    page = layout.reader("accuracy", "prior_data_efficiency_b")
    assert page.read_text().startswith("Unequal, each model by its own recipe: order of the models")
    row = pd.read_csv(page.with_suffix(".csv")).iloc[0]
    order = "temporalmaxer > actionformer > tadtr"
    assert row["order on THUMOS14, prior study"] == row["by median run"] == order and row["τ of medians"] == 1
    assert row["order on b, this study, by mean"] == "temporalmaxer > tadtr > actionformer"
    assert row["Kendall's τ"] == 0.33


def test_collapsed_trainings_are_counted_by_model():
    """One run 25 points below the median of its model and fraction, another 15 points below."""
    table = runs(seeds=range(5)).reset_index(drop=True)
    assert collapsed_runs(table) == ""
    of_bilstm = table.index[(table.model == "bilstm") & (table.fraction == 0.2)]
    table.loc[of_bilstm[0], "avg_map"] -= 25
    table.loc[of_bilstm[4], "avg_map"] -= 15
    assert collapsed_runs(table).endswith("below the median of their model: 1 of bilstm. ")


def test_only_the_runs_of_the_first_version_had_augmentation_for_one_model():
    first, later = (runs().assign(tal_lib_version=version) for version in ("0.1.0", "0.3.0"))
    assert unequal_first(first) == "Unequal, local_global alone had augmentation, in its former design. "
    others = first[first.model != "local_global"]
    for table in (later, others, runs()):
        assert about_recipes(table, "x") == "Unequal, each model by its own recipe: x"
    assert unequal_first(runs(recipe="rotate=30")) == ""


def test_curves_that_end_earlier_are_explained(tmp_path):
    """The prior study has no value of `tridet` with all recordings."""
    both = runs(("tridet", "tadtr", "actionformer"), seeds=(0,)).rename(columns={"avg_map": "ours"})
    both = both.assign(map=50.0)[(both.model != "tridet") | (both.fraction < 1)]
    note = figures.curves_beside_prior(both, "hapt").figure.get_supxlabel()
    assert "Not in both studies: tridet at 100 %." in " ".join(note.split())
