import pandas as pd
import pytest

from tal_lib.reports.advice import advice, headlines


def tables():
    runs = [
        ("local_global", 0.1, 70),
        ("local_global", 1.0, 92.5),
        ("gaf", 0.1, 80),
        ("gaf", 1.0, 93),
        ("ssn", 0.1, 60),
        ("ssn", 1.0, 75),
    ]
    efficiency = pd.DataFrame(
        [
            {
                "benchmark": "hapt",
                "model": model,
                "preset": "compact",
                "options": None,
                "recipe": None,
                "stream": None,
                "fraction": fraction,
                "seed": 0,
                "subset_seed": -1,
                "train_recordings": 4,
                "cell": f"{model}{fraction}",
                "tiou": 0.5,
                "map": value / 100,
            }
            for model, fraction, value in runs
        ]
    )
    cost = pd.DataFrame(
        [
            {
                "benchmark": benchmark,
                "model": model,
                "preset": "compact",
                "device": "cpu",
                "precision": "float32",
                "threads_used": 1,
                "length_steps": steps,
                "latency_s_median": steps * ms / 720e3,
                "detect_s_median": steps * (ms + more) / 720e3,
                "macs": steps * ms * 1e6,
                "peak_memory_bytes": steps * 1000,
            }
            for model, ms, more in (("local_global", 10, 2), ("gaf", 30, 0), ("ssn", 1, 0))
            for benchmark, steps in (("hapt", 288), ("hapt", 720), ("thumos14", 36864))
        ]
    )
    return {"data_efficiency": efficiency, "inference_cost": cost}


def test_each_answer_follows_from_the_tables():
    given = tables()
    answers = advice(lambda name: given.get(name, pd.DataFrame())).set_index("situation")
    assert answers.use["few labels (10 % of the recordings)"] == answers.use["all labels"] == "gaf"
    assert answers.use["a CPU only, one thread"] == "local_global"  # ssn is faster, but not nearly as good
    assert "12.0 ms for 720 steps, untrained" in answers.because["a CPU only, one thread"]
    assert answers.use["long recordings (36,864 steps)"] == "local_global"
    assert "Next: gaf, 2.50 times as long." in answers.because["long recordings (36,864 steps)"]
    assert "little time to train" not in answers.index  # no table says


@pytest.mark.parametrize(
    ("gaf", "repeats", "use", "words"),
    [
        (0.26, [], "local_global", "Next: gaf, 1.30 times as long."),
        (0.201, [], "local_global or gaf", "They tie within 20 %,"),  # times of different days
        (0.239, [0.12, -0.12], "local_global or gaf", "They tie within 20 %,"),
        (0.25, [0.3, -0.3], "local_global or gaf", "They tie within 30 %,"),
    ],
)
def test_times_of_trained_models_decide_and_may_tie(gaf, repeats, use, words):
    """The network of gaf takes three times as long; what counts is the time with decoding and NMS."""
    times = [("local_global", 0.2), ("gaf", gaf), ("ssn", 0.01)]
    shared = {"benchmark": "hapt", "window": 0, "threads_used": 1, "device_name": "c"}
    rows = [shared | {"model": model, "seconds_per_hour": seconds} for model, seconds in times]
    windowed = shared | {"model": "gaf", "window": 64, "seconds_per_hour": 0.001}
    given = tables() | {"inference_length": pd.DataFrame([*rows, windowed])}
    given["repeatability"] = pd.DataFrame({"change": repeats})
    answers = advice(lambda name: given.get(name, pd.DataFrame())).set_index("situation")
    assert answers.use["a CPU only, one thread"] == use
    because = answers.because["a CPU only, one thread"]
    assert because.startswith(
        "0.20 s per hour of recording, trained with all labels: network, decoding and NMS"
    )
    assert words in because and "not measured" not in because


def test_headlines_say_who_leads_and_what_the_recipe_does_for_others():
    given = {
        "aggregate_ranking_values_hapt": pd.DataFrame(
            [("local_global", 94, 93, 95), ("gaf", 90, 89, 91)], columns=["model", "iqm", "low", "high"]
        ),
        "against_the_best_values_hapt": pd.DataFrame(
            [(0.1, 91.0, 11.0), (1.0, 96.0, -0.5)], columns=["fraction", "own_mean", "difference"]
        ),
        "recipes_values_hapt": pd.DataFrame(
            [("exchange=0.3, rotate=30", "gaf", 0.1, 88.0, 8.0), ("min_steps=630", "gaf", 0.1, 99.0, 1.0)],
            columns=["recipe", "model", "fraction", "changed", "difference"],
        ),
    }
    lines = headlines(lambda name: given.get(name, pd.DataFrame()))
    first = "On hapt, **local_global** ranks first over all label fractions (interquartile mean 94.0"
    assert len(lines) == 3 and lines[0].startswith(first)
    assert "at 1 of 2 label fractions" in lines[1] and "from -0.5 to +11.0" in lines[1]
    assert "gaf with 88.0 avg mAP (+8.0 from the recipe). local_global has 91.0" in lines[2]


@pytest.mark.parametrize(
    ("needs_80", "words"),
    [
        (120.0, "gaf needs the fewest annotated segments for 80 avg mAP: 120."),
        (60.0, "80 avg mAP: at most 60."),
        (float("inf"), "On hapt, no model reaches 80 avg mAP with all annotated segments."),
    ],
)
def test_the_annotation_that_a_target_needs_is_a_number_or_said_to_be_out_of_reach(needs_80, words):
    needed = pd.DataFrame([{"model": "gaf", "fewest": 60, "needs_80": needs_80, "needs_90": float("inf")}])
    given = {"annotation_values_hapt": needed}
    (line,) = headlines(lambda name: given.get(name, pd.DataFrame()))
    assert words in line and line.endswith("0 of 1 models reach 90 with all of them.")


def test_without_tables_there_is_no_advice():
    assert advice(lambda name: pd.DataFrame()).empty
