"""Size, annotation and training time on generated ledgers with known effects."""

import numpy as np
import pandas as pd
import pytest

from tal_lib.evaluation.nested import holm, paired_estimate
from tal_lib.reports import figures
from tal_lib.reports.factors import annotation, front, size, training_time
from tal_lib.reports.factors.runs import EVERY_MODEL, people_of_sweep
from tal_lib.reports.report import report, tidy_tables
from tal_lib.sweeps.ledger import update_ledger

MODELS = {"temporalmaxer": 4, "actionformer": 0}
SHORT, LONG = {"min_steps": 400}, {"min_steps": 800}
TREND = np.arange(-5, 6, 2)  # of the six people of a fold


@pytest.fixture
def trained(cell):
    """A record of a cell whose people score `value` ± the trend, with as many annotated segments."""

    def make(sweep, model, fold, value, fraction=1.0, segments=100, **changes):
        noise = np.random.default_rng([fold, *map(ord, f"{model}{changes}")]).normal(0, 0.5, TREND.size)
        changes = {"recipe": SHORT} | changes
        record = cell(sweep, "hapt", fraction, model, fold, value + fold + TREND + noise, **changes)
        for row in record["tables"]["data_efficiency"]:
            row |= {"train_segments": segments, "train_people": round(24 * changes.get("people", 1))}
        return record

    return make


@pytest.fixture
def annotated(trained):
    """Every setting of the annotation budget: segments add points, and people more than their parts."""
    return [
        trained(
            "annotation",
            model,
            fold,
            50 + points + 10 * np.log2(16 * people * share) / 4 + 6 * np.log2(people / share),
            people=people,
            annotated=share,
            segments=round(800 * people * share),
        )
        for model, points in MODELS.items()
        for fold in range(5)
        for people in (1.0, 0.5, 0.25)
        for share in (1.0, 0.5, 0.25)
    ]


def test_many_people_are_compared_with_few_at_the_same_number_of_segments(annotated):
    data = tidy_tables(annotated)
    table, pairs = annotation.scores(data)
    assert len(table) == 9 * 3 and set(table.model) == {*MODELS, EVERY_MODEL}
    assert sorted(pairs.budget.unique()) == [0.125, 0.25, 0.5]
    assert pairs.many_segments.tolist() == pairs.few_segments.tolist()
    assert len(pairs) == 5 * 3  # three of a quarter of the segments
    people = people_of_sweep(data, "annotation")
    for row in pairs[pairs.model != EVERY_MODEL].itertuples():
        here = people[people.model == row.model]
        many, few = (
            here[(here.people == share) & (here.people * here.annotated == row.budget)]
            for share in (row.many_people / 24, row.few_people / 24)
        )
        twin = paired_estimate(many, few)
        assert (row.difference, row.low, row.high, row.p) == (twin.mean, twin.low, twin.high, twin.p)
        assert row.difference == pytest.approx(row.many - row.few)
        assert row.difference == pytest.approx(12 * np.log2(row.many_people / row.few_people), abs=0.5)
    of_mean = pairs.model == EVERY_MODEL
    for rows in (pairs[of_mean], pairs[~of_mean]):
        assert 0 < rows.p.min() and rows.p_adjusted.to_numpy() == pytest.approx(holm(rows.p))
    for row in pairs[of_mean].itertuples():
        same = pairs[~of_mean & (pairs.many_people == row.many_people) & (pairs.few_people == row.few_people)]
        same = same[same.budget == row.budget].set_index("model").difference
        assert row.without == same.abs().idxmax()
        assert row.without_difference == pytest.approx(same.drop(row.without).mean())
    text = annotation.sentence(pairs)
    assert "). actionformer and temporalmaxer show a significant difference (2 tested). Many minus" in text
    assert text.count("temporalmaxer +") == 5
    ends = f"{pairs[of_mean].difference.min():+.1f} to {pairs[of_mean].difference.max():+.1f}"
    assert f"Many minus few, mean over 2 models: {ends} points; 5 of 5 comparisons are significant." in text
    none = annotation.sentence(pairs.assign(p_adjusted=1.0))
    assert none.startswith("On hapt, it is not shown that more people are better. Many people with few")
    assert "). No model shows a significant difference (2 tested). Many minus few" in none
    assert "not shown" not in text
    one_model = pairs.assign(p_adjusted=pairs.p_adjusted.where(pairs.model == "actionformer", 1.0))
    assert "). Only actionformer shows a significant difference (2 tested)." in annotation.sentence(one_model)


def test_a_setting_without_all_folds_is_left_out(annotated):
    last = next(
        record
        for record in annotated
        if record["parameters"]["fold"] == 4
        and record["parameters"]["people"] == 1
        and record["parameters"]["annotated"] == 0.25
        and record["parameters"]["model"] == "actionformer"
    )
    table, pairs = annotation.scores(tidy_tables([record for record in annotated if record is not last]))
    assert len(table) == 9 + 8 + 8  # of the other model, of this one, of the mean over both
    counts = pairs.groupby(["budget", "model"]).size().unstack()
    assert counts["temporalmaxer"].to_dict() == {0.125: 1, 0.25: 3, 0.5: 1}
    assert counts["actionformer"].to_dict() == counts[EVERY_MODEL].to_dict() == {0.125: 1, 0.25: 1, 0.5: 1}


@pytest.mark.parametrize("other", [{"seed": 1}, {"subset_seed": 1}, {"skip": 2}, {"stream": "acc"}])
def test_runs_that_differ_in_anything_else_do_not_count(annotated, other):
    decoys = []
    for record in annotated:
        rows = [row | {"map": 0.1} for row in record["tables"]["data_efficiency"]]
        decoys.append(
            record
            | {"id": f"{record['id']}_decoy", "parameters": record["parameters"] | other}
            | {"provenance": record["provenance"] | {"utc": "2027-01-01"}}
            | {"tables": record["tables"] | {"data_efficiency": rows}}
        )
    alone, together = (annotation.scores(tidy_tables(runs)) for runs in (annotated, [*annotated, *decoys]))
    for before, after in zip(alone, together, strict=True):
        pd.testing.assert_frame_equal(before, after)


def test_one_model_has_no_mean_over_models(annotated):
    records = [record for record in annotated if record["parameters"]["model"] == "actionformer"]
    table, pairs = annotation.scores(tidy_tables(records))
    assert set(pairs.model) == set(table.model) == {"actionformer"} and annotation.sentence(pairs) == ""


def test_models_with_options_stand_beside_the_mean_over_models(annotated, trained):
    normed = [
        trained(
            "annotation",
            "actionformer",
            fold,
            value,
            options={"norm": "half"},
            people=people,
            annotated=share,
        )
        for fold in range(5)
        for people, share, value in ((0.5, 0.25, 20), (0.25, 0.5, 50))
    ]
    _, before = annotation.scores(tidy_tables(annotated))
    table, pairs = annotation.scores(tidy_tables([*annotated, *normed]))
    row = pairs[pairs.options != ""].iloc[0]
    assert len(pairs) == len(before) + 1 and row.model == "actionformer (norm=half)" and row.budget == 0.125
    assert row.difference == pytest.approx(-30, abs=0.5)
    means = [rows[rows.model == EVERY_MODEL].difference.tolist() for rows in (before, pairs)]
    assert means[0] == means[1]
    text = annotation.sentence(pairs)
    assert (
        "mean over 2 models" in text
        and "Added later: many minus few of actionformer (norm=half) is -30" in text
    )
    plain = pairs[(pairs.model == "actionformer") & (pairs.budget == 0.125)].iloc[0]
    assert row.change == pytest.approx(row.difference - plain.difference)
    assert f", with its default options {plain.difference:+.1f} (" in text
    assert f" people). The change is {row.change:+.1f} [" in text
    assert row.change_low < row.change < row.change_high and pairs[pairs.options == ""].change.isna().all()


def test_cells_that_another_sweep_ran_first_count(annotated, timed):
    everything = {"people": 1.0, "annotated": 1.0}
    for record in annotated:
        if everything.items() <= record["parameters"].items():
            record["sweep"] = "plain"
    table, _ = annotation.scores(tidy_tables(annotated))
    assert len(table) == 9 * 3
    for record in timed:
        if record["parameters"]["recipe"] == SHORT:
            record["sweep"] = "plain"
    others = [record | {"id": f"{record['id']}_{half}"} for record in timed for half in (0.2, 1.0)]
    for record, half in zip(others, [0.2, 1.0] * len(timed), strict=True):  # bases of no other use
        record["parameters"] = record["parameters"] | {"fraction": half, "recipe": SHORT, "options": {}}
        record["sweep"] = "plain"
    table, pairs = training_time.scores(tidy_tables([*timed, *others]))
    assert table.groupby("use").fraction.unique().map(set).to_dict() == dict.fromkeys(
        training_time.USES, {0.1, 0.4}
    )


@pytest.fixture
def timed(trained):
    """Twice the steps add 1 point, twice the data 8, twice the width nothing."""
    records = []
    for model, points in MODELS.items():
        for fold in range(5):
            for base in (0.1, 0.4):
                value = 50 + points + 20 * base
                uses = [
                    (base, 0, {}),
                    (base, 1, {"recipe": LONG}),
                    (2 * base, 8, {"recipe": LONG}),
                    (base, 0, {"recipe": {"min_steps": 290}, "options": {"width": 256, "head_width": 256}}),
                ]
                records += [
                    trained("time_budget", model, fold, value + gain, fraction, segments=place, **changes)
                    for place, (fraction, gain, changes) in enumerate(uses)
                ]
    return records


def test_uses_of_the_training_time_are_told_apart_by_their_settings(timed):
    table, pairs = training_time.scores(tidy_tables(timed))
    assert len(table) == 2 * 2 * 4 and len(pairs) == 2 * 2 * 6
    wide = table.set_index(["model", "fraction", "use"])
    for model in MODELS:
        for base in (0.1, 0.4):
            at = lambda use, model=model, base=base: wide.loc[(model, base, use)]
            assert at("more data").labels == 2 * base and at("more data").steps == 800
            assert at("more steps").labels == base and at("larger model").steps == 290
            known = pairs[(pairs.model == model) & (pairs.fraction == base)].set_index(["use", "other"])
            assert known.difference["more data", "base"] == pytest.approx(8, abs=0.5)
            assert known.difference["more data", "more steps"] == pytest.approx(7, abs=0.5)
            assert known.p_adjusted["more data", "larger model"] < 0.05
    assert pairs.p_adjusted.to_numpy() == pytest.approx(holm(pairs.p))
    halfway = [
        record
        for record in timed
        if record["parameters"]["fraction"] != 0.4 or not record["parameters"]["options"]
    ]
    _, unfinished = training_time.scores(tidy_tables(halfway))
    assert set(unfinished.fraction) == {0.1}, "without its larger model a base is not known"
    text = training_time.sentence(pairs)
    gains = pairs[(pairs.use == "more data") & (pairs.other == "base")].difference
    ends = f"{gains.min():+.1f} to {gains.max():+.1f}"
    assert f"More data: {ends}, 4 of 4 significant" in text
    assert text.index("More data: ") < text.index("More steps: ") < text.index("Larger model: ")
    assert "against" not in text  # other pairs are in the table
    text = training_time.sentence(pairs.assign(p_adjusted=1.0))
    assert " of 4" not in text and "three ways. No difference is significant. " in text


@pytest.fixture
def sized(trained):
    """Three widths: at the largest, one model gains 9 points and the other nothing."""
    return [
        trained(
            "size",
            model,
            fold,
            50 + points + (9 * (width == 256) if points else 0),
            options={"width": width, "head_width": width},
            segments=width,
        )
        for model, points in MODELS.items()
        for fold in range(5)
        for width in (64, 128, 256)
    ]


def test_models_are_compared_at_equal_size_and_the_largest_with_the_smallest(sized):
    table, growth = size.scores(tidy_tables(sized))
    assert table["size"].tolist() == [name for name in ("small", "medium", "large") for _ in MODELS]
    assert dict(zip(table["size"], table.width)) == {"small": 64, "medium": 128, "large": 256}
    assert table[["macs", "latency_s"]].isna().all(axis=None)
    for _, rows in table.groupby("size"):
        assert dict(zip(rows.model, rows.letters)) == {"temporalmaxer": "a", "actionformer": "b"}
    assert growth.p_adjusted.to_numpy() == pytest.approx(holm(growth.p))
    gains = growth.set_index("model")
    assert gains.difference["temporalmaxer"] == pytest.approx(9, abs=0.6)
    assert gains.p_adjusted["temporalmaxer"] < 0.05 < gains.p_adjusted["actionformer"]
    text = size.sentence(growth, table)
    assert text.startswith("It gains significantly for 1 of 2 models on hapt with 100 %.")
    assert "medium on hapt with 100 %, temporalmaxer differs from actionformer; large on" in text
    grown = {"small": 1.0, "medium": 3.0, "large": 10.0}
    macs = table["size"].map(grown) * table.model.map({"temporalmaxer": 1.0956, "actionformer": 1.0})
    text = size.sentence(growth, table.assign(macs=macs))
    assert text.startswith("The largest size has 10 times the MACs of the smallest. It")
    assert text.endswith("The MACs of one size differ by up to 10 % on hapt.")
    assert "It gains significantly for 2 of 2 models" in size.sentence(growth.assign(p_adjusted=0.01), table)
    alike = table.assign(letters="a")
    assert size.sentence(growth, alike).endswith(
        "At equal size, no model differs significantly from the highest mean."
    )
    assert size.sentence(growth.iloc[:0], table) == ""


def test_what_else_changes_with_the_size_is_shown(sized):
    for record in sized:
        if record["parameters"]["options"]["width"] == 64 and record["parameters"]["model"] == "actionformer":
            record["parameters"]["options"]["embedding_kernel"] = 1
    table, _ = size.scores(tidy_tables(sized))
    small = table[table["size"] == "small"].set_index("model").embedding
    assert small["actionformer"] == "embedding_kernel=1" and small["temporalmaxer"] == "default"
    assert (table.embedding[table["size"] != "small"] == "default").all()
    assert size._also_changed(table) == " The embedding changes too in actionformer."
    assert size._also_changed(table[table.model == "temporalmaxer"]) == ""


def test_pairs_of_all_sizes_are_one_family(sized):
    people = size.people_of_sweep(tidy_tables(sized), "size")
    people = people.assign(size=people.options.map(size.width_of))
    settings = {
        (name, model): rows
        for name, width in zip(size.SIZES, (64, 128, 256), strict=True)
        for model, rows in people[people["size"] == width].groupby("model")
    }
    adjusted = size._adjusted(settings, sorted(MODELS))
    values = [
        paired_estimate(settings[name, "actionformer"], settings[name, "temporalmaxer"]).p
        for name in size.SIZES
    ]
    assert [
        *adjusted["small"].values(),
        *adjusted["medium"].values(),
        *adjusted["large"].values(),
    ] == pytest.approx(holm(values), rel=1e-9, abs=0)


def test_the_cost_beside_a_size_is_the_newest_of_its_model_and_width():
    row = {"benchmark": "hapt", "length_steps": 576, "model": "tridet", "preset": "compact", "params": 10}
    row |= {"device": "cpu", "threads_used": 1, "precision": "float32", "macs": 100}
    costs = size._costs(
        pd.DataFrame(
            [
                row | {"options": "head_width=64, width=64", "latency_s_median": 2.0, "utc": "2026-01-02"},
                row | {"options": "head_width=64, width=64", "latency_s_median": 3.0, "utc": "2026-01-01"},
                row | {"options": "head_width=32, width=64", "latency_s_median": 4.0, "threads_used": 2},
                row | {"options": "head_width=96, width=96", "latency_s_median": 5.0, "length_steps": 288},
                row | {"options": "head_width=64, width=64", "latency_s_median": 6.0, "benchmark": "urfall"},
            ]
        )
    )
    assert costs == {("hapt", "tridet", 64): (100, 10, 2.0), ("urfall", "tridet", 64): (100, 10, 6.0)}


def test_a_report_of_the_three_sweeps(annotated, timed, sized, tmp_path):
    for name, records in (("annotation", annotated), ("time_budget", timed), ("size", sized)):
        update_ledger(
            tmp_path / "results" / "ledger" / f"{name}.jsonl", {record["id"]: record for record in records}
        )
    report(tmp_path / "results", tmp_path / "figures", tmp_path / "runs", render=False)
    readers = tmp_path / "results" / "readers" / "factors"
    for name in ("annotation_budget", "people_or_segments", "training_time", "training_time_pairs", "size"):
        text = (readers / f"{name}_hapt.md").read_text()
        assert "hapt" in text and "nan" not in text
    assert (tmp_path / "figures" / "factors" / "annotation_budget_hapt.png").is_file()
    assert (tmp_path / "figures" / "factors" / "training_time_hapt.png").is_file()
    assert not list((tmp_path / "figures" / "factors").glob("size_*")), "no cost is measured"


def test_curves_by_size_need_their_cost():
    rows = [
        ("hapt", 0.1, model, value, value - 1, value + 1, cost)
        for model, value in (("tridet", 80.0), ("gaf", 70.0))
        for cost in (1e8, 5e8, 2e9)
    ]
    table = pd.DataFrame(rows, columns=["benchmark", "fraction", "model", "mean", "low", "high", "macs"])
    known = front.fronts(table.assign(size="small", latency_s=float("nan")))
    axes = figures.size_curves(table, "macs", known)
    assert len(axes) == 1 and len(axes[0].lines) == 3  # two models and the front
    assert axes[0].lines[0].get_xdata().tolist() == pytest.approx([0.1, 0.5, 2.0])
    line = axes[0].lines[2]  # tridet's, from the least to the greatest cost
    assert line.get_xdata()[[0, -1]].tolist() == pytest.approx([0.1, 2.0]) and set(line.get_ydata()) == {80}
    bold = [text.get_text() for text in axes[0].texts if text.get_fontweight() == "bold"]
    assert bold == ["tridet"]


def test_the_front_is_of_curves_and_stands_beside_the_gains():
    """b crosses a between their first two sizes; c lies below; the curve of d stays at its highest point."""
    points = {"a": (50, 60, 70), "b": (30, 90, 95), "c": (40, 20, 45)}
    rows = [
        ("hapt", 0.1, model, name, value, cost, cost / 10)
        for model, values in points.items()
        for name, value, cost in zip(size.SIZES, values, (1e8, 1e9, 1e10), strict=True)
    ]
    columns = ["benchmark", "fraction", "model", "size", "mean", "macs", "latency_s"]
    table = pd.DataFrame(rows, columns=columns)
    known = front.fronts(table)
    assert known.cost.tolist() == ["macs"] * 2 + ["latency_s"] * 2
    assert known.model.tolist() == ["a", "b"] * 2
    crossing = 10 ** (8 + 20 / 50)  # 50 + 10 x = 30 + 60 x, x in powers of ten
    assert known.from_cost[1] == pytest.approx(crossing, rel=0.02) and known.from_cost[0] == 1e8
    assert known.to_cost[1] == pytest.approx(1e10)
    falls = table[table.model == "c"].assign(model="d", mean=[80.0, 10.0, 20.0])
    assert front.fronts(pd.concat([table, falls])).model.tolist() == ["d", "b"] * 2
    dearer = table[table.model == "a"].assign(model="e", mean=[1, 1, 1], macs=[5e8, 1e9, 2e9])
    assert front.fronts(pd.concat([table, dearer])).iloc[0][["model", "from_cost"]].tolist() == ["b", 5e8]
    assert front.fronts(table.assign(macs=float("nan"), latency_s=float("nan"))).empty
    gains = pd.DataFrame({"difference": [20.0, 65.0, 5.0], "p_adjusted": [0.04, 0.01, 0.9]})
    (row,) = front.for_readers(table, gains.assign(benchmark="hapt", fraction=0.1), known).to_dict("records")
    assert row == {
        "benchmark": "hapt",
        "label fraction": "10 %",
        "largest − smallest": "+5.0 to +65.0 (2 of 3)",
        "small": "a 50.0",
        "medium": "b 90.0",
        "large": "b 95.0",
        "highest curve by MACs": "a, then b (from 0.25 GMACs)",
        "highest curve by latency": f"a, then b (from {crossing * 100:.2g} ms)",
    }


def test_our_model_meets_every_size_that_costs_no_more(sized, trained):
    """local_global is 5 points above actionformer; its costs allow one size of that, none of the other."""
    ours = [trained("plain", "local_global", fold, 55) for fold in range(5)]
    data = tidy_tables(sized + ours)
    table, _ = size.scores(data)
    small = (table.model == "actionformer") & (table["size"] == "small")
    table = table.assign(
        macs=small.map({True: 1e8, False: 9e8}), latency_s=small.map({True: 0.01, False: 0.02})
    )
    row = {
        "benchmark": "hapt",
        "model": "local_global",
        "device": "cpu",
        "preset": "compact",
        "threads_used": 1,
    }
    row |= {"precision": "float32", "length_steps": size.STEPS, "macs": 2e8, "device_name": "c"}
    data["inference_cost"] = pd.DataFrame(
        [row | {"latency_s_median": value} for value in (0.01, 0.02, 0.015)]
    )
    met = front.target(data, table)
    assert met[["model", "size", "own_macs"]].values.tolist() == [["actionformer", "small", 2e8]]
    scores = table[small].iloc[0]
    assert met.difference.item() == pytest.approx(met.own_mean.item() - scores["mean"], abs=1e-9)
    assert met.difference.item() == pytest.approx(5, abs=0.6) and met.low.item() > 0
    text = front.target_sentence(met)
    assert "actionformer (small) costs at most as much in both" in text and text.endswith(
        "The target is met."
    )
    assert front.target_sentence(met.assign(low=-1.0)).endswith("The target is not met.")
    slower = data["inference_cost"].assign(latency_s_median=0.009)
    assert front.target(data | {"inference_cost": slower}, table).empty
