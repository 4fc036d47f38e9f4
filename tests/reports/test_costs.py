import pandas as pd
import pytest

from tal_lib.reports import costs, tables


def measured(model, repeat, seconds, reference=1.0):
    return {
        "benchmark": "b",
        "preset": "compact",
        "device_name": "a processor",
        "precision": "float32",
        "threads_used": 1,
        "model": model,
        "length_steps": 288,
        "repeat": repeat,
        "latency_s_median": seconds,
        "reference_s": reference,
    }


def test_repeats_are_told_as_they_were_measured():
    cost = pd.DataFrame(
        [
            measured("a", 0, 1.0),
            measured("a", 1, 1.02),
            measured("b", 0, 2.0),
            measured("b", 1, 1.5, reference=2.0),
            measured("c", 0, 1.0),
        ]
    )  # measured once
    table = costs.repeatability(cost)
    assert table.model.tolist() == ["a", "b"] and table.quiet.tolist() == [True, False]
    assert table.change.tolist() == pytest.approx([0.02, -0.25])
    (said,) = costs.repeats(table)
    assert (
        said.startswith("2 latencies were measured twice on a processor")
        and "50 % by less than 10 %, the worst by 25.0 %" in said
    )
    assert said.endswith(
        "both times (1, by the reference beside the samples): 100 % by less than 10 %, the worst by 2.0 %."
    )
    assert costs.repeats(costs.repeatability(cost[cost.repeat == 0])) == []


def test_figures_of_a_table_are_written_alike(tmp_path):
    table = pd.DataFrame(
        {
            "model": ["a", "b", "c"],
            "ms": ["1,049", "3.30", "–"],
            "mAP": [82.0, 84.3, None],
            "steps": ["≈ 1,200", "< 30", "> 4"],
            "interval": ["1.0 [0.9, 1.1]", "2", "3"],
        }
    )
    lines = tables.write_table(table, tmp_path / "t.md", "Caption.").read_text().splitlines()
    assert [cell.strip() for cell in lines[4].strip("|").split("|")] == [
        "a",
        "1,049",
        "82.0",
        "≈ 1,200",
        "1.0 [0.9, 1.1]",
    ]
    assert [cell.strip() for cell in lines[6].strip("|").split("|")] == ["c", "–", "–", "> 4", "3"]
    assert [cell.strip().endswith(":") for cell in lines[3].strip("|").split("|")] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert r"\begin{tabular}{lrrrr}" in (tmp_path / "t.tex").read_text()
    assert pd.read_csv(tmp_path / "t.csv").mAP.tolist()[:2] == [82.0, 84.3]
