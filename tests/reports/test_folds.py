"""Results on folds are a table of their own, and never enter those of the official split."""

import pandas as pd

from tal_lib.reports import folds


def rows(*cells):
    """(model, fold, seed, mAP at two tIoUs) → rows of `data_efficiency`."""
    return pd.DataFrame(
        [
            {
                "benchmark": "b",
                "fold": fold,
                "model": model,
                "preset": "compact",
                "fraction": 1.0,
                "seed": seed,
                "subset_seed": -1,
                "stream": "",
                "options": "",
                "recipe": "",
                "tiou": tiou,
                "map": value,
                "cell": f"{model}{fold}{seed}",
            }
            for model, fold, seed, values in cells
            for tiou, value in zip((0.3, 0.5), values)
        ]
    )


TABLE = rows(
    ("bilstm", -1, 0, (0.9, 0.9)),
    ("bilstm", 0, 0, (0.2, 0.4)),
    ("bilstm", 0, 1, (0.4, 0.6)),
    ("bilstm", 1, 0, (0.6, 0.8)),
    ("window_cnn", 0, 0, (0.1, 0.3)),
)


def test_means_of_folds_are_over_seeds_and_without_the_official_split():
    means = folds.fold_means(TABLE).set_index(["model", "fold"])
    assert means.avg_map.round(6).to_dict() == {
        ("bilstm", 0): 40.0,
        ("bilstm", 1): 70.0,
        ("window_cnn", 0): 20.0,
    }
    assert means.runs.to_list() == [2, 1, 1]


def test_a_mean_over_folds_needs_all_of_them():
    table = folds.fold_table(folds.fold_means(TABLE))
    assert table.model.to_list() == ["bilstm", "window_cnn"]
    assert table["mean"].to_list() == ["55.0", ""] and table["fold 1"].to_list() == ["70.0", ""]


def test_the_official_split_alone():
    assert folds.on_official_split(TABLE).cell.unique().tolist() == ["bilstm-10"]
    old = TABLE.drop(columns="fold")
    assert folds.on_official_split(old) is old and not len(folds.fold_means(old))


def test_the_floor_stands_beside_models_of_another_recipe():
    """The floor has no recipe. It must not push out models that all have the same one."""
    both = pd.concat([TABLE.assign(recipe="min_steps=400"), rows(("timeline_prior", 0, 0, (0.1, 0.1)))])
    assert set(folds.fold_means(both).model) == {"bilstm", "window_cnn", "timeline_prior"}


def test_one_table_of_all_benchmarks_over_the_folds_that_all_models_have():
    means = folds.fold_means(
        pd.concat([TABLE, TABLE.assign(benchmark="c", map=TABLE["map"] / 2, cell=TABLE.cell + "c")])
    )
    table = folds.benchmark_table(means).set_index("model")
    assert table.loc["bilstm"].tolist() == ["40.0", "20.0"]  # fold 1 is left out
    assert table.loc["window_cnn"].tolist() == ["20.0", "10.0"]


def test_the_caption_names_the_folds_of_every_benchmark():
    columns = ["benchmark", "model", "fold"]
    rows = [("b", "x", 0), ("b", "x", 1), ("a", "x", 0), ("a", "y", 0), ("a", "y", 1), ("c", "x", 0)]
    assert folds.folds_of(pd.DataFrame(rows, columns=columns)) == (
        "Cross-validation folds: 0 on a, c; 0, 1 on b."
    )
