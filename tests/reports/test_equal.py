"""The equal arm on generated ledgers with known effects: who is ranked, where, and how surely."""

import re

import numpy as np
import pandas as pd
import pytest

from tal_lib.evaluation.nested import holm, improvement, mean_of, nested_estimate, paired_estimate
from tal_lib.files import REPOSITORY
from tal_lib.reports import equal
from tal_lib.reports.equal import page, ranking, transfer
from tal_lib.reports.equal.arms import (
    FLOOR,
    MAIN,
    MEAN,
    TUNED,
    failures,
    people_of,
    runs_of,
    scores_of,
    training_segments,
)
from tal_lib.reports.equal.components import components_of_variance, sentence
from tal_lib.reports.equal.pairs import comparison
from tal_lib.reports.layout import Layout
from tal_lib.reports.output import Output
from tal_lib.reports.report import report, tidy_tables
from tal_lib.sweeps.ledger import update_ledger

EFFECTS = {"temporalmaxer": 10, "tridet": 0, "actionformer": 0, "bilstm": -8}


def ranked_of(records):
    scores = scores_of(tidy_tables(records), MAIN)
    pairs = comparison(scores)
    ranked = ranking.ranking(scores, pairs)
    return scores, pairs, ranked, ranking.left_out(scores, ranked)


@pytest.fixture(scope="module")
def known(study):
    return ranked_of(study(EFFECTS))


def test_equal_models_share_a_letter_and_a_better_one_does_not(known):
    *_, ranked, missing = known
    for _, rows in ranked.groupby("fraction"):
        letters = dict(zip(rows.model, rows.letters))
        assert letters == {"temporalmaxer": "a", "tridet": "b", "actionformer": "b", "bilstm": "c", FLOOR: ""}
        assert rows.model.iloc[0] == "temporalmaxer" and rows.model.iloc[-1] == FLOOR
        assert rows.place.iloc[:4].tolist() == [1, 2, 3, 4] and pd.isna(rows.place.iloc[-1])
    assert missing.empty


def test_means_are_those_of_the_folds_avg_map_and_intervals_are_nested(known, study):
    data = tidy_tables(study(EFFECTS))
    *_, ranked, _ = known
    efficiency = data["data_efficiency"].query("sweep == 'equal'")
    of_fold = 100 * efficiency.groupby(["fraction", "model", "fold"])["map"].mean()
    people = data["people"].query("sweep == 'equal'")
    for row in ranked.itertuples():
        assert row.mean == pytest.approx(of_fold[row.fraction, row.model].mean())
        assert row.corrected == pytest.approx(row.mean - 1)  # the generated bias
        assert row.fold_0 == pytest.approx(of_fold[row.fraction, row.model, 0])
        rows = people[(people.model == row.model) & (people.fraction == row.fraction)]
        nested = nested_estimate(rows.assign(value=100 * rows.score))
        assert (row.low, row.high) == pytest.approx((nested.low + 1, nested.high + 1))
        assert (row.folds, row.people) == (5, 30)


def test_pairs_are_paired_by_person_and_adjusted_over_the_table(known):
    scores, pairs, *_ = known
    here = pairs[pairs.fraction == 0.1]
    assert len(here) == 6
    assert here.p_adjusted.to_numpy() == pytest.approx(holm(here.p))
    wide = scores["hapt", 0.1].people
    values_of = lambda model: wide[model].rename("value").reset_index()
    for row in here.itertuples():
        twin = paired_estimate(values_of(row.model), values_of(row.other))
        assert (row.difference, row.low, row.high, row.p) == pytest.approx(
            (twin.mean, twin.low, twin.high, twin.p)
        )
        chance = improvement(values_of(row.model), values_of(row.other))
        assert (row.probability, row.probability_low, row.probability_high) == pytest.approx(chance)
        assert row.probability_low < 1  # never a point
    first = here.iloc[0]  # noise of 1 point a person: much narrower than the interval of a mean
    assert first.model == "temporalmaxer" and first.high - first.low < 3


def test_a_model_without_all_folds_is_left_out_and_named(study):
    records = study(EFFECTS)
    dropped = [
        record
        for record in records
        if record["parameters"]["model"] == "temporalmaxer"
        and record["parameters"]["fold"] == 4
        and record["parameters"]["fraction"] == 0.1
    ]
    *_, ranked, missing = ranked_of([record for record in records if record not in dropped])
    assert missing.to_dict("records") == [
        {
            "benchmark": "hapt",
            "fraction": 0.1,
            "model": "temporalmaxer",
            "why": "4 of 5 folds: 0, 1, 2, 3 only",
        }
    ]
    few, most = (ranked[ranked.fraction == fraction] for fraction in (0.1, 1.0))
    assert "temporalmaxer" not in set(few.model) and most.model.iloc[0] == "temporalmaxer"
    table = ranking.ranking_table(ranked, missing).set_index("model")
    assert table.loc["temporalmaxer", "10 %"] == "4 of 5 folds: 0, 1, 2, 3 only"
    assert (
        table.loc["temporalmaxer", "group, 10 %"] == "–" and table.loc["temporalmaxer", "group, 100 %"] == "a"
    )
    assert table.index[-1] == FLOOR


def test_without_a_fold_of_any_model_the_others_count(study):
    records = [record for record in study(EFFECTS) if record["parameters"]["fold"] < 3]
    *_, ranked, missing = ranked_of(records)
    assert missing.empty and set(ranked.folds) == {3}


def test_newer_settings_replace_older_ones(study, cell):
    records = study({"tridet": 0, "bilstm": 5}, fractions=(1.0,))
    old = {"recipe": {"exchange": 0.6}, "utc": "2025-01-01T00:00:00"}
    records += [cell("equal", "hapt", 1.0, "tridet", fold, np.full(6, 5.0), **old) for fold in range(5)]
    *_, ranked, missing = ranked_of(records)
    assert ranked.set_index("model")["mean"]["tridet"] > 60 and missing.empty


def test_training_segments_are_the_mean_over_folds_of_the_arm(study, tmp_path):
    """Fold 0 has 10 segments at each label fraction, the others 20; those of the plain arm do not count."""
    data = tidy_tables(study(EFFECTS))
    assert training_segments(data, MAIN) == {}  # not known
    scores = data["data_efficiency"]
    counts = (20.0 - 10 * (scores.fold == 0)).where(scores.sweep == MAIN, 1000.0)
    data["data_efficiency"] = scores.assign(train_segments=counts)
    assert training_segments(data, MAIN) == {("hapt", 0.1): 18.0, ("hapt", 1.0): 18.0}
    layout = Layout(tmp_path, tmp_path / "figures")
    equal.write(data, Output(layout, "equal"))  # from where page 00 reads them
    written = pd.read_csv(layout.table("factorial_summary"))
    assert written.set_index(["benchmark", "fraction"]).segments.to_dict() == {
        ("hapt", 0.1): 18,
        ("hapt", 1.0): 18,
    }


def test_runs_of_other_sizes_streams_and_seeds_are_no_part_of_the_arm(study, cell):
    records = study({"tridet": 0, "bilstm": 5}, fractions=(1.0,))
    expected = ranked_of(records)[2]
    for change in ({"preset": "paper"}, {"stream": "acc"}, {"seed": 1}, {"subset_seed": 3}, {"fold": -1}):
        fold = change.pop("fold", 0)
        records.append(cell("equal", "hapt", 1.0, "tridet", fold, np.full(6, 1.0), **change))
    pd.testing.assert_frame_equal(ranked_of(records)[2], expected)


def test_a_cell_that_the_sweep_of_variance_ran_first_is_in_the_equal_arm(study):
    records = study({"tridet": 0, "bilstm": 5}, fractions=(0.1, 0.2, 1.0))
    expected = runs_of(tidy_tables(records), MAIN)
    for record in records:
        parameters = record["parameters"]
        if parameters["model"] == "tridet" and parameters["fraction"] == 0.2 and record["sweep"] == MAIN:
            record["sweep"] = "variance"
    pd.testing.assert_frame_equal(runs_of(tidy_tables(records), MAIN), expected)


def test_a_model_whose_tuning_chose_the_plain_recipe_is_in_the_equal_arm(study):
    """Then the plain arm has run its cells, in both arms, and the equal sweep none."""
    records = study({"tridet": 0, "bilstm": 5}, fractions=(0.1, 1.0))
    expected = runs_of(tidy_tables(records), MAIN)
    for record in records:
        if record["parameters"]["model"] == "tridet" and record["parameters"]["fraction"] == 1.0:
            record["sweep"] = "plain"
    data = tidy_tables(records)
    assert len(runs_of(data, MAIN)) == len(expected) - 5
    tuned = "model == 'tridet' and fraction == 1.0 and recipe == 'exchange=0.3'"
    known = data["data_efficiency"].query(tuned).iloc[0]
    trial = {"benchmark": "hapt", "model": "tridet", "fraction": 1.0, "chosen": True}
    trial |= {"recipe": ", ".join(reversed(known.recipe.split(", "))), "options": known.options}
    trials = pd.DataFrame([trial, trial | {"recipe": "learning_rate=9", "chosen": False}])
    pd.testing.assert_frame_equal(runs_of(data | {"tuning_trials": trials}, MAIN), expected)


def test_the_mean_over_benchmarks_weighs_them_equally(study):
    scores, pairs, ranked, missing = ranked_of(study(EFFECTS, (*TUNED, "elsewhere"), (1.0,)))
    mean = ranked[ranked.benchmark == MEAN].set_index("model")
    for model in EFFECTS:
        each = [ranked[(ranked.benchmark == name) & (ranked.model == model)].iloc[0] for name in TUNED]
        assert mean["mean"][model] == pytest.approx(sum(row["mean"] for row in each) / 4)
        variance = sum(row["between"] + row["within"] for row in each) / 16
        assert mean.between[model] + mean.within[model] == pytest.approx(variance)
    assert list(mean.letters) == ["a", "b", "b", "c", ""] and mean.folds.iloc[0] == 20
    assert missing.empty
    assert len(pairs[pairs.benchmark == MEAN]) == 6
    assert ranked.benchmark.drop_duplicates().tolist() == [*TUNED, "elsewhere", MEAN]


def test_there_is_no_mean_over_some_of_the_tuned_benchmarks(study):
    _, pairs, ranked, missing = ranked_of(study(EFFECTS, TUNED[:3], (1.0,)))
    assert MEAN not in set(ranked.benchmark) and MEAN not in set(pairs.benchmark) and missing.empty


def test_a_model_that_one_benchmark_lacks_has_no_mean_over_benchmarks(study):
    records = [
        record
        for record in study(EFFECTS, TUNED, (1.0,))
        if (record["parameters"]["benchmark"], record["parameters"]["model"]) != ("urfall", "tridet")
    ]
    *_, ranked, missing = ranked_of(records)
    assert "tridet" not in set(ranked[ranked.benchmark == MEAN].model)
    assert missing.to_dict("records") == [
        {"benchmark": MEAN, "fraction": 1.0, "model": "tridet", "why": "not ranked on urfall"}
    ]


def test_rankings_of_two_benchmarks_agree_or_not(study):
    order = {name: 5 * place for place, name in enumerate(("tridet", "bilstm", "stale", "gaf", "afsd"))}
    same = study(order, ("hapt", "sfinge3d"), (1.0,))
    reverse = study({name: -effect for name, effect in order.items()}, ("urfall",), (1.0,), seed=5)
    table = transfer.between_benchmarks(scores_of(tidy_tables(same + reverse), MAIN))
    taus = {(row.first, row.second): (row.tau, row.low, row.high) for row in table.itertuples()}
    assert taus["hapt", "sfinge3d"][0] == pytest.approx(1) and taus["hapt", "sfinge3d"][1] > 0.5
    assert taus["hapt", "urfall"][0] == pytest.approx(-1) and taus["hapt", "urfall"][2] < -0.5
    assert (table.models == 5).all() and len(table) == 3


def test_components_need_a_complete_crossed_design(cell):
    rng = np.random.default_rng(0)
    person, records = rng.normal(0, 8, (5, 6)), []
    for model in ("tridet", "bilstm"):
        for fold in range(5):
            for subset_seed in (0, 1):
                for seed in (0, 1):
                    if (model, fold, seed) == ("bilstm", 3, 1):
                        continue
                    sweep = "variance" if seed or subset_seed else "equal"  # the first is shared
                    scores = 70 + person[fold] + rng.normal(0, 1, 6)
                    change = {"seed": seed, "subset_seed": subset_seed}
                    records.append(cell(sweep, "hapt", 0.2, model, fold, scores, **change))
    table, gaps = components_of_variance(tidy_tables(records))
    assert table.model.tolist() == ["tridet"] and gaps.model.tolist() == ["bilstm"]
    row = table.iloc[0]
    assert (row.folds, row.people, row.subsets, row.seeds) == (5, 30, 2, 2)
    assert 4 < row.person_sd < 11 and "missing" in gaps.why.iloc[0]
    text = sentence(pd.concat([table, table.assign(model="gaf", person_sd=20.04)]))
    assert text.startswith("On hapt with 20 % of the labels") and "between people (2 models)." in text
    assert f"the score of a person varies by {row.person_sd:.1f} to 20.0 points between people" in text
    shared = f"alike by {row.subset_sd:.1f} points, and another training seed by {row.seed_sd:.1f}."
    assert f"Another subset sample changes the scores of all people {shared}" in text
    assert f"Effects on single people, and noise, have {row.rest_sd:.1f} points." in text
    again = f"{row.repeat_seed_sd:.1f} points with another seed, and by {row.repeat_subset_seed_sd:.1f} with"
    ends = f"reach {row.repeat_seed_high:.1f} and {row.repeat_subset_seed_high:.1f}."
    assert f"A fold's avg mAP varies by {again} another sample. Their 95 % intervals {ends}" in text
    assert row.repeat_subset_seed_low < row.repeat_subset_seed_sd < row.repeat_subset_seed_high < 2


def header_of(table):
    return [cell.strip() for cell in table.splitlines()[0].split("|")[1:-1]]


def test_the_page_shows_every_benchmark_and_its_best_in_bold(known):
    ranked = known[2].assign(benchmark="urfall")
    ranked = pd.concat([known[2], ranked, known[2].assign(benchmark=MEAN)])
    of_benchmarks = ranked[ranked.benchmark != MEAN]
    columns = ["hapt, 10 %", "hapt, 100 %", "urfall, 10 %", "urfall, 100 %"]
    assert header_of(page.ranking(of_benchmarks)) == ["model", *columns]
    assert header_of(page.ranking_at(of_benchmarks, "1.0")) == ["model", *columns[1::2]]
    assert header_of(page.ranking_at(ranked, "0.1")) == ["model", "mean, 10 %", *columns[::2]]
    shown = page.ranking(ranked)
    assert header_of(shown) == ["model", "mean, 10 %", "mean, 100 %", *columns[1::2]]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in shown.splitlines()[2:]]
    assert cells[0][0] == "temporalmaxer" and cells[-1][0] == "timeline_prior"
    assert all(cell.startswith("**") for cell in cells[0][1:])
    assert not any("**" in cell for row in cells[1:] for cell in row)
    row = ranked[(ranked.model == "tridet") & (ranked.fraction == 0.1)].iloc[0]
    shown = next(row for row in cells if row[0] == "tridet")[1]
    assert shown == f"{row['mean']:.1f} b<br>[{row.low:.1f}, {row.high:.1f}]"
    assert page.finished(ranked) == "2 of the 4 tuned benchmarks: hapt and urfall"
    links = page.more(pd.concat([ranked, known[2].assign(benchmark="elsewhere")])).splitlines()
    others = "- rankings on other benchmarks"
    assert [line.split(":")[0] for line in links] == ["- `hapt`", "- `urfall`", "- mean", others]
    assert [line.count("](results/readers/equal/") for line in links] == [7, 7, 4, 1]
    assert links[1].count("equal_pairs_urfall_10.md") == 1
    nothing = ranked.iloc[:0]
    assert "not run" in page.ranking(nothing) and page.ranking_at(nothing, "1.0") == page.ranking(nothing)
    assert page.more(nothing) == ""
    assert page.finished(nothing) == "0 of the 4 tuned benchmarks"
    assert page.our_model(ranked) == "It has the highest mean on none of the tuned benchmarks."
    ours = page.our_model(ranked.replace({"model": {"temporalmaxer": "local_global"}}))
    assert ours.count("hapt") == ours.count("urfall") == 2
    place = (
        "with the equal recipe. Its rank in the mean over benchmarks is {0} of 4 (10 %) and {0} of 4 (100 %)."
    )
    assert f"own model, is ahead {place.format(1)}" in ours
    last = page.our_model(ranked.replace({"model": {"bilstm": "local_global"}}))
    assert f"own model, is not ahead {place.format(4)}" in last
    every = pd.concat([known[2].assign(benchmark=name) for name in TUNED])
    assert page.finished(every) == "all 4 tuned benchmarks: hapt, sfinge3d, rendered and urfall"
    assert page.folds(ranked).count("](results/readers/equal/equal_folds_") == 2 and page.folds(nothing) == ""


def test_what_tuning_changed_is_counted_and_what_can_be_told_apart():
    rows = [("urfall", 1.0, 2.0, 0.01), ("urfall", 1.0, 0.1, 0.9), ("urfall", 1.0, 0.0, 1.0)]
    rows += [("urfall", 1.0, -1.0, 0.04), ("urfall", 0.1, -3.0, 0.05)]
    table = pd.DataFrame(rows, columns=["benchmark", "fraction", "difference", "p_adjusted"])
    assert page.tuned(table) == (
        "Tuning changed 4 of 5 means: 2 rose and 2 fell. Significant: 1 of the rises and 1 of the falls."
    )
    of_none = "Significant: 0 of the rises and 0 of the falls."
    assert page.tuned(table.assign(p_adjusted=0.5)).endswith(of_none)
    assert page.tuned(table.iloc[:0]) == page.tuned(table.assign(difference=0.0)) == ""


def test_there_may_be_nothing(study):
    assert scores_of({}, MAIN) == {}
    assert comparison({}).empty and ranking.ranking({}, comparison({})).empty
    only_plain = tidy_tables(study(EFFECTS, arms=("plain",)))
    assert scores_of(only_plain, MAIN) == {}
    no_people = {"data_efficiency": tidy_tables(study(EFFECTS))["data_efficiency"]}
    assert scores_of(no_people, MAIN) == {} and people_of(no_people, runs_of(no_people, MAIN)).empty


def test_independent_estimates_are_averaged(known):
    scores = known[0]["hapt", 1.0]
    estimate = nested_estimate(scores.people["tridet"].rename("value").reset_index())
    both = mean_of([estimate, estimate])
    assert both.mean == estimate.mean and both.freedom == pytest.approx(2 * estimate.freedom)
    assert both.between + both.within == pytest.approx((estimate.between + estimate.within) / 2)


def test_the_table_for_a_paper_has_every_benchmark_and_the_mean(study):
    ranked = ranked_of(study(EFFECTS, TUNED))[2]
    table = ranking.main_table(ranked, 0.1)
    assert [*table] == ["model", *TUNED, MEAN] and list(table.model)[-1] == FLOOR
    row = ranked[(ranked.benchmark == "hapt") & (ranked.fraction == 0.1)].set_index("model").loc["tridet"]
    text = table.set_index("model").loc["tridet", "hapt"]
    assert text == f"{row['mean']:.1f} ± {row['mean'] - row.low:.1f} {row.letters}"
    means = [float(text.split()[0]) for text in table[MEAN][:-1]]
    assert means == sorted(means, reverse=True) and not re.search("[a-z]", table[MEAN].iloc[-1])


def test_the_table_of_folds_has_every_fold_and_their_mean(known):
    scores = {fraction: here for (name, fraction), here in known[0].items() if name == "hapt"}
    table = ranking.folds_table(scores).set_index(["label fraction", "model"])
    folds = table.filter(like="fold ").astype(float)
    assert [*folds] == [f"fold {fold}" for fold in range(5)]
    assert (folds.mean(axis=1) - table["mean"].astype(float)).abs().max() < 0.11
    expected = scores[1.0].folds["tridet"].sort_index()
    assert list(table.loc["100 %", "tridet"])[:-1] == [f"{value:.1f}" for value in expected]


def test_the_whole_report(study, tmp_path):
    """Every table and figure is written once; captions are short; the dictionary knows every column."""
    folder = tmp_path / "results"
    records = study(EFFECTS, ("hapt", "sfinge3d"))
    update_ledger(folder / "ledger" / "equal.jsonl", {record["id"]: record for record in records})
    done = report(folder, tmp_path / "figures", tmp_path / "runs", render=False)
    names = {path.stem for path in done.tables if path.parent.name == "equal"}
    assert names >= {"equal_hapt", "equal_folds_hapt", "equal_pairs_hapt_10", "factorial"}
    assert (tmp_path / "figures" / "equal" / "factorial.png").is_file()
    dictionary = (REPOSITORY / "results" / "README.md").read_text(encoding="utf-8")
    words = set(re.findall(r"`([^`]+)`", dictionary))
    for path in (folder / "tables").glob("*.csv"):
        columns = set(pd.read_csv(path, nrows=0))
        assert path.stem in words and not columns - words, (path.name, columns - words)
    for path in (folder / "readers" / "equal").glob("*.md"):
        caption = path.read_text(encoding="utf-8").split("\n", 1)[0]
        assert len(caption.split()) < 70, (path.name, len(caption.split()))
    tex = (folder / "readers" / "equal" / "equal_hapt.tex").read_text(encoding="utf-8")
    row = next(line for line in tex.splitlines() if line.startswith("temporalmaxer"))
    assert row.count("\\textbf") == 2  # the best at both label fractions


def test_a_training_that_detected_nothing_is_named_in_the_caption(study):
    records = study({"temporalmaxer": 0, "tridet": 0}, fractions=(1.0,))
    scores = scores_of(tidy_tables(records), MAIN)
    assert failures(scores, ["hapt"], [1.0]) == ""
    folds = scores["hapt", 1.0].folds
    folds.loc[2, "tridet"] = 0.0
    assert failures(scores, ["hapt"], [1.0]) == (
        " tridet on fold 2 of hapt (100 %) detected nothing and counts as 0."
    )
    folds.loc[4, "tridet"] = 0.0
    assert failures(scores, ["hapt"], [1.0]) == (
        " tridet on folds 2, 4 of hapt (100 %) detected nothing and count as 0."
    )
    assert failures(scores, ["urfall"], [1.0]) == failures(scores, ["hapt"], [0.1]) == ""
