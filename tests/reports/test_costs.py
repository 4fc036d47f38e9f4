import pandas as pd
import pytest

from tal_lib.reports import costs


def measured(model, repeat, seconds, reference=1.0):
    return {"benchmark": "b", "preset": "compact", "device_name": "a processor", "precision": "float32", "threads_used": 1, "model": model,
            "length_steps": 288, "repeat": repeat, "latency_s_median": seconds, "reference_s": reference}


def test_repeats_are_told_as_they_were_measured():
    cost = pd.DataFrame([measured("a", 0, 1.0), measured("a", 1, 1.02), measured("b", 0, 2.0), measured("b", 1, 1.5, reference=2.0),
                         measured("c", 0, 1.0)])  # measured once
    table = costs.repeatability(cost)
    assert table.model.tolist() == ["a", "b"] and table.quiet.tolist() == [True, False]
    assert table.change.tolist() == pytest.approx([0.02, -0.25])
    (said,) = costs.repeats(table)
    assert said.startswith("2 latencies were measured twice on a processor") and "50% by less than 10 %, the worst by 25.0 %" in said
    assert said.endswith("both times (1, by the reference beside the samples): 100%, 2.0 %.")
    assert costs.repeats(costs.repeatability(cost[cost.repeat == 0])) == []
