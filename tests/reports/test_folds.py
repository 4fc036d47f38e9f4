"""Results on folds are a table of their own, and never enter those of the official split."""

import pandas as pd

from tal_lib.reports import folds, official
from tal_lib.reports.layout import Layout
from tal_lib.reports.output import Output


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
    means = folds.fold_means(folds.on_folds(TABLE)).set_index(["model", "fold"])
    assert means.avg_map.round(6).to_dict() == {
        ("bilstm", 0): 40.0,
        ("bilstm", 1): 70.0,
        ("window_cnn", 0): 20.0,
    }
    assert means.runs.to_list() == [2, 1, 1]


def test_a_mean_over_folds_needs_all_of_them():
    table = folds.fold_table(folds.fold_means(folds.on_folds(TABLE)))
    assert table.model.to_list() == ["bilstm", "window_cnn"]
    assert table["mean"].to_list() == ["55.0", ""] and table["fold 1"].to_list() == ["70.0", ""]


def test_the_official_split_alone():
    assert folds.on_official_split(TABLE).cell.unique().tolist() == ["bilstm-10"]
    old = TABLE.drop(columns="fold")
    assert folds.on_official_split(old) is old and not len(folds.fold_means(folds.on_folds(old)))


def test_the_floor_stands_beside_models_of_another_recipe():
    """The floor has no recipe. It must not push out models that all have the same one."""
    both = pd.concat([TABLE.assign(recipe="min_steps=400"), rows(("timeline_prior", 0, 0, (0.1, 0.1)))])
    assert set(folds.fold_means(folds.on_folds(both)).model) == {"bilstm", "window_cnn", "timeline_prior"}


def test_tuned_models_keep_their_runs_and_have_no_winner(tmp_path):
    """Each has other settings. The most frequent recipe of all would leave one model."""
    whole = rows(*((name, fold, 0, (0.5, 0.5)) for name in ("bilstm", "tridet") for fold in (0, 1, 2)))
    tuned = whole.assign(recipe=whole.model.map({"bilstm": "learning_rate=0.1", "tridet": "rotate=15"}))
    tuned["options"] = tuned.model.map({"bilstm": "", "tridet": "dropout=0.1"})
    floor = rows(("timeline_prior", 0, 0, (0.1, 0.1)))
    plain = pd.concat([whole, floor]).assign(
        benchmark="plain", recipe="min_steps=400", cell=lambda t: t.cell + "p"
    )
    layout = Layout(tmp_path / "results", tmp_path / "figures")
    folds.write({"data_efficiency": pd.concat([tuned, floor, plain])}, Output(layout).about("accuracy"))
    accuracy = layout.readers / "accuracy"
    text = (accuracy / "folds_b.md").read_text()
    assert text.startswith("Unequal, each model by its own recipe: avg mAP") and "**" not in text
    assert all(f"| {name} " in text for name in ("bilstm", "tridet", "timeline_prior"))
    assert (accuracy / "folds_plain.md").read_text().startswith("One recipe: avg mAP")
    assert not (accuracy / "folds_by_benchmark.md").exists()  # one benchmark is left


def test_one_table_of_all_benchmarks_over_shared_folds():
    other = TABLE.assign(benchmark="c", map=TABLE["map"] / 2, cell=TABLE.cell + "c")
    means = folds.fold_means(folds.on_folds(pd.concat([TABLE, other])))
    table = folds.benchmark_table(means).set_index("model")
    assert table.loc["bilstm"].tolist() == ["40.0", "20.0"]  # fold 1 is left out
    assert table.loc["window_cnn"].tolist() == ["20.0", "10.0"]


def test_a_model_with_one_fold_does_not_reduce_the_others_to_it():
    rows = [(model, fold, 10.0 * fold) for model in ("x", "y", "z") for fold in (0, 1, 2)] + [("w", 0, 99.0)]
    means = pd.DataFrame(rows, columns=["model", "fold", "avg_map"]).assign(benchmark="b")
    assert folds.folds_of(means) == "Cross-validation folds: 0, 1, 2 on b."
    assert folds.benchmark_table(means).to_dict("list") == {"model": ["x", "y", "z"], "b": ["10.0"] * 3}
    only_first = folds.benchmark_table(means[means.fold == 0])
    assert list(only_first) == ["model", "b (fold 0)"]
    finished = {"x": "012", "y": "01", "z": "02"}
    rows = [(model, fold, 1.0) for model in finished for fold in finished[model]]
    unfinished = pd.DataFrame(rows, columns=["model", "fold", "avg_map"]).assign(benchmark="b")
    assert folds.benchmark_table(unfinished).model.tolist() == ["x", "y", "z"]  # fold 0, which all have


def test_the_caption_names_the_folds_of_every_benchmark():
    columns = ["benchmark", "model", "fold"]
    rows = [("b", "x", 0), ("b", "x", 1), ("a", "x", 0), ("a", "y", 0), ("a", "y", 1), ("c", "x", 0)]
    assert folds.folds_of(pd.DataFrame(rows, columns=columns)) == (
        "Cross-validation folds: 0 on a, c; 0, 1 on b."
    )


def test_the_official_split_has_the_plain_recipe_alone(tmp_path):
    plain = "epochs=1, max_steps=576, min_steps=400"
    table = rows(
        ("tridet", -1, 0, (0.9, 0.8)),
        ("gaf", -1, 0, (0.8, 0.7)),
        ("gaf", 0, 0, (0.1, 0.1)),
        ("timeline_prior", -1, 0, (0.3, 0.2)),
        ("tadtr", -1, 0, (1.0, 1.0)),
        ("bilstm", -1, 1, (1.0, 1.0)),
    ).assign(benchmark="hapt")
    of_floor = table.model == "timeline_prior"
    table["recipe"] = table.recipe.mask(~of_floor, plain).mask(table.model == "tadtr", f"{plain}, lr=0.1")
    few = table[table.model == "tridet"].assign(fraction=0.1, cell="few", map=0.6)
    table = pd.concat([table, few])
    known = official.scores(table)
    assert [tuple(row) for row in known.round(6).itertuples(index=False)] == [
        (0.1, "tridet", 60.0),
        (1.0, "tridet", 85.0),
        (1.0, "gaf", 75.0),
        (1.0, "timeline_prior", 25.0),
    ]
    layout = Layout(tmp_path / "results", tmp_path / "figures")
    official.write({"data_efficiency": table}, Output(layout).about("accuracy"))
    text = (layout.readers / "accuracy" / "official_hapt.md").read_text()
    assert "nan" not in text and text.index("tridet") < text.index("gaf") < text.index("timeline_prior")
    assert official.scores(table.drop(columns="fold")).empty
