"""Advice and findings of the equal arm: a winner is named only where there is one."""

import pandas as pd
import pytest

from tal_lib.reports.advice import advice, headlines
from tal_lib.reports.equal import factorial, ranking, sentences
from tal_lib.reports.equal.arms import MAIN, PLAIN, TUNED, scores_of
from tal_lib.reports.equal.pairs import comparison
from tal_lib.reports.report import tidy_tables

MACS = {"temporalmaxer": 2e8, "tridet": 3e8, "actionformer": 1e8, "bilstm": 5e7}


def tables_of(records):
    """The tables that advice reads, with measured costs."""
    data = tidy_tables(records)
    equal, plain = scores_of(data, MAIN), scores_of(data, PLAIN)
    cost = pd.DataFrame(
        [
            {
                "benchmark": "hapt",
                "model": model,
                "preset": "compact",
                "device": "cpu",
                "device_name": "c",
                "precision": "float32",
                "threads_used": 1,
                "length_steps": 720,
                "latency_s_median": macs / 1e11,
                "detect_s_median": macs / 1e11,
                "macs": macs,
                "peak_memory_bytes": 1e6,
            }
            for model, macs in MACS.items()
        ]
    )
    given = {
        "equal_values": ranking.ranking(equal, comparison(equal)),
        "factorial_summary": factorial.factorial(equal, plain)[1],
        "data_efficiency": data["data_efficiency"],
        "inference_cost": cost,
    }
    return lambda name: given.get(name, pd.DataFrame())


def test_a_winner_is_named_with_its_runners_up(study):
    read = tables_of(study({"temporalmaxer": 10, "tridet": 0, "actionformer": 0, "bilstm": -8}))
    answers = advice(read).set_index("situation")
    for situation in ("few labels (10 %), hapt", "all labels, hapt"):
        assert answers.use[situation] == "temporalmaxer"
        assert "significantly better than all others" in answers.because[situation]
        assert "(b)" in answers.because[situation] and answers["from"][situation] == "equal_hapt"
    # the fastest model is bilstm; it is no leader
    assert answers.use["a CPU only, one thread"] == "temporalmaxer"


def test_no_winner_is_named_where_there_is_none(study):
    read = tables_of(study({"temporalmaxer": 0, "tridet": 0, "actionformer": 0, "bilstm": -8}))
    answers = advice(read).set_index("situation")
    use, because = answers.use["all labels, hapt"], answers.because["all labels, hapt"]
    assert all(model in use for model in ("temporalmaxer", "tridet", "actionformer")) and " or " in use
    assert because.startswith("3 models cannot be told apart (")
    assert (
        "The one with the fewest MACs is actionformer: 0.10 GMACs." in because and "Next: bilstm" in because
    )
    assert answers.use["a CPU only, one thread"] == "actionformer"
    close = "of the 3 leading models with the most labels on hapt"
    assert close in answers.because["a CPU only, one thread"]
    assert "first" not in " ".join(headlines(read)) and "best other" not in " ".join(headlines(read))


def test_costs_are_compared_among_the_models_that_no_benchmark_tells_apart_from_its_best(study):
    """On hapt temporalmaxer and tridet lead, on urfall tridet and actionformer: tridet is in both groups."""
    hapt = {"temporalmaxer": 0, "tridet": 0, "actionformer": -20, "bilstm": -30}
    urfall = {"temporalmaxer": -20, "tridet": 0, "actionformer": 0, "bilstm": -30}
    read = tables_of(study(hapt) + study(urfall, ["urfall"]))
    answers = advice(read).set_index("situation")
    assert answers.use["little computation"] == answers.use["a CPU only, one thread"] == "tridet"
    because = answers.because["little computation"]
    assert "of the best models with the most labels on hapt and urfall (only tridet)" in because
    nothing = tables_of(study({"tridet": 20, "bilstm": 0}) + study({"tridet": 0, "bilstm": 20}, ["urfall"]))
    assert not advice(nothing).situation.str.contains("computation|CPU").any()


def test_costs_of_an_older_network_are_left_out(study):
    read = tables_of(study({"temporalmaxer": 0, "tridet": 0, "actionformer": 0, "bilstm": -8}))
    shared = {"benchmark": "hapt", "window": 0, "threads_used": 1, "device_name": "c"}
    times = {"temporalmaxer": 0.3, "tridet": 0.2, "actionformer": 0.1}
    length = pd.DataFrame([shared | {"model": m, "seconds_per_hour": s, "cell": m} for m, s in times.items()])
    stale = pd.DataFrame(
        [("actionformer", "models/actionformer"), ("tridet", "recipes/tridet"), ("tridet", "models/bmn")],
        columns=["cell", "area"],
    )
    given = {"inference_length": length, "stale": stale}
    answers = advice(lambda name: given.get(name, read(name))).set_index("situation")
    assert answers.use["a CPU only, one thread"] == "tridet"
    assert answers.because["a CPU only, one thread"].endswith("Not measured: actionformer.")
    for area in ("cost/meters", "models/parts/pyramid", "process/memory", "notebooks/03_inference_length"):
        given["stale"] = pd.DataFrame({"cell": ["tridet"], "area": [area]})
        answers = advice(lambda name: given.get(name, read(name))).set_index("situation")
        assert answers.use["a CPU only, one thread"] == "actionformer", area
        assert answers.because["a CPU only, one thread"].endswith("Not measured: tridet.")
    given["stale"] = pd.DataFrame({"cell": ["tridet"] * 2, "area": ["training/loop", "data of hapt"]})
    answers = advice(lambda name: given.get(name, read(name))).set_index("situation")
    assert "Not measured" not in answers.because["a CPU only, one thread"]  # the network is the same


def test_times_of_different_days_tie(study):
    read = tables_of(study({"temporalmaxer": 0, "tridet": 0, "actionformer": 0, "bilstm": -8}))
    shared = {"benchmark": "hapt", "window": 0, "threads_used": 1, "device_name": "c"}
    times = {"temporalmaxer": 0.203, "tridet": 0.18, "actionformer": 0.3}
    length = pd.DataFrame([shared | {"model": m, "seconds_per_hour": s, "cell": m} for m, s in times.items()])
    answers = advice(lambda name: length if name == "inference_length" else read(name)).set_index("situation")
    assert answers.use["a CPU only, one thread"] == "tridet or temporalmaxer"
    assert "They tie within 20 %" in answers.because["a CPU only, one thread"]


def test_lower_precision_is_not_another_runtime(study):
    read = tables_of(study({"temporalmaxer": 0, "tridet": 0, "actionformer": 0, "bilstm": -8}))
    shared = {"benchmark": "hapt", "threads_used": 1, "device_name": "c", "length_steps": 720, "speedup": 2.0}
    variants = [
        ("tridet", "onnx", 0.001, 0.0),
        ("tridet", "int8", 0.003, 0.2),
        ("temporalmaxer", "bfloat16", 0.002, 5.0),
        ("actionformer", "float32", 0.004, 0.0),
    ]
    table = pd.DataFrame(
        [
            shared
            | {"model": model, "cell": model, "variant": variant, "latency_s_median": s, "map_lost": lost}
            for model, variant, s, lost in variants
        ]
    )
    answers = advice(lambda name: table if name == "quantization" else read(name)).set_index("situation")
    assert answers.use["smallest latency with lower precision"] == "tridet, int8"
    because = answers.because["smallest latency with lower precision"]
    assert because.endswith("Not measured: actionformer."), "the one that loses more is measured"
    others = table.assign(map_lost=table.map_lost / 10)  # now temporalmaxer loses little
    for seconds, use, text in (
        (0.002, "temporalmaxer, bfloat16", "Next: tridet, int8, 1.50 times as long."),
        (0.00295, "temporalmaxer, bfloat16 or tridet, int8", "They tie within 5 %"),
    ):
        others.loc[2, "latency_s_median"] = seconds
        given = {"quantization": others}
        answers = advice(lambda name, given=given: given.get(name, read(name))).set_index("situation")
        assert answers.use["smallest latency with lower precision"] == use
        assert text in answers.because["smallest latency with lower precision"]


def test_costs_have_runners_up_and_tie(study):
    read = tables_of(study({"temporalmaxer": 0, "tridet": 0, "actionformer": 0, "bilstm": -8}))
    shared = {"benchmark": "hapt", "threads_used": 1, "device_name": "c"}
    seconds = {"temporalmaxer": 6.0, "tridet": 7.0, "actionformer": 9.0, "bilstm": 1.0}
    rows = [shared | {"model": model, "cell": model, "near_final_s": s} for model, s in seconds.items()]
    rows.append(
        shared | {"model": "temporalmaxer", "options": "width=256", "cell": "w", "near_final_s": 60.0}
    )
    answers = advice(
        lambda name: pd.DataFrame(rows) if name == "training_milestones" else read(name)
    ).set_index("situation")
    assert answers.use["little time to train"] == "temporalmaxer or tridet"
    assert "Next: actionformer, 1.50 times as long." in answers.because["little time to train"]
    curve = pd.DataFrame({"cell": "temporalmaxer", "seconds": [3.5, 7.0, 10.5], "epoch": [2, 4, 6]})
    given = {"training_milestones": pd.DataFrame(rows), "training_curve": curve}
    every = advice(lambda name: given.get(name, read(name))).set_index("situation")
    assert every.use["little time to train"] == "temporalmaxer or tridet or actionformer"
    assert "They tie within 58 %, the time between two evaluations." in every.because["little time to train"]
    assert answers.use["little computation"] == "actionformer"
    assert "Next: temporalmaxer, 2.00 times as many." in answers.because["little computation"]


def test_findings_open_with_the_factorial_and_give_the_floor(study):
    read = tables_of(study({"temporalmaxer": 10, "tridet": 0, "bilstm": -8}, TUNED))
    lines = headlines(read)
    assert lines == [line for line in lines if "recipe" in line]  # the arm is said in every line
    few, many = (sentences.ranked(read, "mean", fraction)["mean"] for fraction in (0.1, 1.0))
    gaps = [few.max() - few.min(), many.max() - many.min()]
    summary = read("factorial_summary").query("benchmark == 'mean'").sort_values("fraction")
    assert [line.replace("\\", "") for line in lines[:3]] == [
        f"The best and the last of 3 models differ by {min(gaps):.1f} to {max(gaps):.1f} points; the recipe "
        f"adds {sentences.value_range(summary.recipe)} on average.",
        "With the equal recipe and 10 % of the labels, temporalmaxer "
        f"leads ({few.max():.1f} avg mAP). The last has {few.min():.1f}, and the floor, timeline_prior, "
        f"{summary.floor.iloc[0]:.1f}.",
        "With the equal recipe and 100 % of the labels, temporalmaxer leads ("
        f"{many.max():.1f} avg mAP). The last has {many.min():.1f}, and the floor, timeline_prior, "
        f"{summary.floor.iloc[1]:.1f}.",
    ]
    low, high = (f"{value:+.1f} [" for value in summary.recipe)
    assert lines[3].count(low) and high in lines[3] and lines[3].startswith("With 10 % of the labels, the")
    assert len(lines) == 4


def test_the_conclusion_says_that_leading_models_cannot_be_told_apart(study):
    read = tables_of(study({"temporalmaxer": 0, "tridet": 0, "bilstm": -30}, TUNED, (1.0,)))
    summary = read("factorial_summary").query("benchmark == 'mean'")
    rows = sentences.ranked(read, "mean", 1.0)
    first, second, last = rows["mean"]
    assert sentences.conclusion(read, summary) == [
        f"The best and the last of 3 models differ by {first - last:.1f} points; the recipe adds "
        f"{summary.recipe.item():.1f} on average. The leading ones cannot be told apart.",
        f"With the equal recipe and 100 % of the labels, 2 models lead ({second:.1f} to "
        f"{first:.1f} avg mAP, {rows.model.iloc[0]} the highest). The last has {last:.1f}, and the floor, "
        f"timeline_prior, {summary.floor.item():.1f}.",
    ]
    loss, _ = sentences.conclusion(read, summary.assign(recipe=-2.0))
    assert "points; the recipe adds -2.0 on average." in loss
    assert sentences.conclusion(read, summary.iloc[:0]) == []
    given = {"equal_values": read("equal_values")}
    (only,) = sentences.findings(lambda name: given.get(name, pd.DataFrame()))
    assert only.startswith("Averaged over the tuned benchmarks, with the equal recipe and 100 %")
    assert sentences.conclusion(read, summary.assign(benchmark="hapt")) == []


def test_the_conclusion_names_a_model_that_can_be_told_apart_from_some_leading_ones_only(study):
    read = tables_of(study({"temporalmaxer": 1, "tridet": 0, "bilstm": -30}, TUNED, (1.0,)))
    summary = read("factorial_summary").query("benchmark == 'mean'")
    values = read("equal_values")
    of_mean = values[values.benchmark.eq("mean") & values.place.notna()]
    first, second, third = of_mean.sort_values("place").model
    values["letters"] = values.model.map({first: "ab", second: "a", third: "b"})
    _, text = sentences.conclusion(lambda name: values if name == "equal_values" else read(name), summary)
    assert "100 % of the labels, 2 models lead (" in text
    told = f" can be told apart from {second}, but not from {first}. The last has"
    assert told in text and f". {third} (" in text


@pytest.mark.parametrize(
    ("letters", "words"),
    [
        (("ab", "a", "b"), ["z (1.0) can be told apart from y, but not from x."]),
        (("ab", "ab", "b", "c"), []),
        (
            ("a", "ab", "b", "b"),
            [
                "z (1.0) can be told apart from x, but not from y.",
                "v (0.5) can be told apart from x, but not from y.",
            ],
        ),
    ],
)
def test_a_model_that_some_leading_ones_are_better_than_is_told_apart_from_these(letters, words):
    rows = pd.DataFrame({"model": list("xyzv"), "mean": [3.0, 2.0, 1.0, 0.5], "low": 0.0, "high": 9.0})
    rows = rows.head(len(letters)).assign(letters=letters)
    assert sentences._between(rows, sentences.advised(rows)) == words


def test_a_model_may_be_left_out_by_one_that_is_left_out():
    """Of x, z, y and v, only x and z are advised: y is behind z, and v behind y, but not behind z."""
    rows = pd.DataFrame({"model": list("xzyv"), "mean": [3.0, 2.0, 1.0, 0.5], "low": 0.0, "high": 9.0})
    rows["letters"] = ["ab", "a", "b", "a"]
    level = sentences.advised(rows)
    assert level.model.tolist() == ["x", "z"]
    assert sentences._between(rows, level) == [
        "y (1.0) can be told apart from z, but not from x.",
        "v (0.5) can be told apart from y, but not from x and z.",
    ]


def test_with_few_labels_costs_are_compared_among_the_models_that_lead_there(study):
    """At 10 % bilstm leads with the others, and is the fastest; at 100 % it is behind."""
    few = study({"temporalmaxer": 0, "tridet": 0, "bilstm": 0}, fractions=(0.1,))
    many = study({"temporalmaxer": 0, "tridet": 0, "bilstm": -30}, fractions=(1.0,))
    answers = advice(tables_of(few + many)).set_index("situation")
    situation = "few labels (10 %) on a CPU, one thread"
    assert answers.use[situation] == "bilstm" and answers.use["a CPU only, one thread"] == "temporalmaxer"
    assert "of the 3 leading models with few labels (10 %) on hapt" in answers.because[situation]


def test_each_benchmark_has_one_line_with_its_leaders_and_its_floors(study):
    equal_models = {"temporalmaxer": 0, "tridet": 0, "bilstm": -30}
    apart = {"temporalmaxer": 20, "tridet": 0, "bilstm": -8}
    read = tables_of(study(apart) + study(equal_models, ["urfall"]))
    lines = {benchmark: line for line in headlines(read)[2:] for benchmark in [line.split(",")[0]]}
    assert list(lines) == ["On hapt", "On urfall"]
    assert lines["On hapt"].count("temporalmaxer has ") == 2
    assert lines["On urfall"].count("2 models cannot be told apart (") == 2
    floors = read("equal_values").query("benchmark == 'urfall' and model == 'timeline_prior'")
    few, many = floors.sort_values("fraction")["mean"]
    assert lines["On urfall"].endswith(f"The floor, timeline_prior, has {few:.1f} and {many:.1f}.")


@pytest.mark.parametrize(
    ("letters", "level", "words"),
    [
        (("a", "b", "c"), ["x"], "significantly better than all others. Next: y 2.0 (b), z 1.0 (c)."),
        (("a", "a", "b"), ["x", "y"], "2 models cannot be told apart (2.0 to 3.0 avg mAP). Next: z 1.0 (b)."),
        (("ab", "a", "b"), ["x", "y", "z"], "x has the highest mean (3.0 avg mAP)."),
        (("ab", "a", "b", "c"), ["x", "y", "z"], "Only v (0.5) can be told apart from x."),
        (("a", "b", "a"), ["x", "z"], "2 models cannot be told apart (1.0 to 3.0 avg mAP). Next: y 2.0 (b)."),
        (("[27]", "[28]", "[27]"), ["x", "z"], "2 models cannot be told apart ("),
    ],
)
def test_leaders_share_a_letter_with_the_best(letters, level, words):
    rows = pd.DataFrame({"model": list("xyzv"), "mean": [3.0, 2.0, 1.0, 0.5], "low": 0.0, "high": 9.0})
    rows = rows.head(len(letters)).assign(letters=letters)
    assert sentences.leaders(rows).model.tolist() == level
    assert words in sentences.verdict(rows)[1]


def test_no_model_is_advised_that_another_leader_is_better_than():
    rows = pd.DataFrame({"model": list("xyz"), "mean": [3.0, 2.0, 1.0], "low": 0.0, "high": 9.0})
    use, because = sentences.verdict(rows.assign(letters=["ab", "a", "b"]), pd.Series({"y": 2e9, "z": 1e9}))
    assert use == "x or y" and "The one with the fewest MACs is y" in because
    assert because.endswith(
        "No model can be told apart from x. z (1.0) is left out: y can be told apart from it."
    )
    assert sentences.verdict(rows.assign(letters=["ab", "ab", "b"]))[0] == "x, y or z"


def test_without_an_equal_arm_the_old_answers_stay(study):
    read = tables_of(study({"tridet": 0, "bilstm": 5}))
    old = lambda name: pd.DataFrame() if name in ("equal_values", "factorial_summary") else read(name)
    assert sentences.findings(old) == [] and sentences.questions(old) == []


@pytest.mark.parametrize(
    ("effect", "ahead", "instead"),
    [
        (20, "is ahead with the equal recipe. Its rank in the mean over benchmarks is 1 of 4 (100 %).", ""),
        (
            -20,
            "is not ahead with the equal recipe. Its rank in the mean over benchmarks is 4 of 4 (100 %).",
            " temporalmaxer has the fewest MACs (0.20 G) of the models that lead at every label fraction.",
        ),
    ],
)
def test_the_place_of_our_model_is_said_first_and_another_is_named(study, effect, ahead, instead):
    """bilstm has the fewest MACs of all, but does not lead."""
    models = {"temporalmaxer": 0, "tridet": 0, "bilstm": -8, "local_global": effect}
    lines = headlines(tables_of(study(models, TUNED, (1.0,))))
    assert lines[3].replace("\\", "") == f"local_global, this study's own model, {ahead}{instead}"
    assert "own model" not in " ".join(lines[:3])
    alone = headlines(tables_of(study(models, ("hapt",), (1.0,))))
    assert "this study's own model" not in " ".join(alone)


def test_no_other_model_is_named_without_known_costs(study):
    read = tables_of(study({"temporalmaxer": 0, "tridet": 1, "local_global": -20}, TUNED, (1.0,)))
    assert sentences.instead(read, None) == ""
