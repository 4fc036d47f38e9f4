"""Words of tables and cards that follow from the data: groups of folds, counts, what scores are of."""

import numpy as np
import pandas as pd
import pytest

from tal_lib.data.hapt import WINDOW, window_features
from tal_lib.data.registry import BENCHMARKS, group_name
from tal_lib.reports import tables
from tal_lib.reports.advice import _macs
from tal_lib.reports.cards import counted
from tal_lib.reports.costs import quantization
from tal_lib.reports.layout import Layout
from tal_lib.reports.provenance import Origin, stale_in_equal


def test_groups_are_people_where_the_loaded_benchmark_knows_them():
    measured = tables.read_csv(Layout().table("benchmarks"))
    assert len(measured) > 10
    for row in measured.itertuples():
        assert BENCHMARKS[row.benchmark].people == (row.people > 0), row.benchmark


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["hapt"], "person"),
        (["hapt_validation"], "person"),
        (["50salads_validation"], "person"),
        (["urfall"], "recording"),
        (["a folder"], "recording"),
        (["sfinge3d", "hapt"], "person or recording"),
    ],
)
def test_words_for_groups(names, word):
    assert group_name(*names) == word


def test_columns_of_a_stream_are_a_block_per_axis_in_the_order_of_time():
    """As the card of a trained model says."""
    signal = np.arange(100 * 6).reshape(100, 6)
    first = window_features(signal)[0].reshape(6, WINDOW)
    assert np.array_equal(first, signal[:WINDOW].T)


def test_converted_parts_name_their_unit():
    """A graph may store nine weights of eight layers."""
    row = pd.Series({"converted": 9.0, "layers": 8.0})
    assert quantization._converted("onnx int8 static", row) == "9 graph weights"
    assert quantization._converted("int8", row.replace(9.0, 8.0)) == "8 of 8 layers"


def test_macs_of_a_model_without_rows_are_counted():
    shared = {"benchmark": "b", "preset": "compact", "device": "cpu", "precision": "float32"}
    row = shared | {
        "threads_used": 1,
        "length_steps": 720,
        "device_name": "c",
        "model": "bilstm",
        "macs": 5.0,
    }
    cost = pd.DataFrame([row | {"input_dim": 12, "num_classes": 3}])
    macs = _macs(lambda name: cost, "b", {"bilstm", "local_global"})
    assert len(macs) == 2
    assert macs["bilstm"] == 5.0 and macs["local_global"] == 1e9 * counted("local_global", 12, 3, 720)[1] > 0


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (None, "4 were computed by older code or from older data (results"),
        (0, "by older code or from older data, none of them in the equal comparison (results"),
        (2, "by older code or from older data, 2 of them in the equal comparison (results"),
    ],
)
def test_the_sentence_on_older_code_names_the_equal_comparison(count, words):
    assert words in Origin(9, 0, 4, count).sentence()


def test_older_cells_of_the_equal_arm_are_counted():
    shared = {"benchmark": "b", "fraction": 1.0, "model": "bilstm", "seed": 0, "subset_seed": 0, "utc": "1"}
    shared |= {"preset": "compact", "map": 0.5, "tiou": 0.5, "recipe": "", "options": "", "stream": ""}
    runs = [("equal", "e"), ("plain", "p"), ("hapt", "h")]
    rows = [
        shared | {"fold": -1 if sweep == "hapt" else 0, "sweep": sweep, "cell": cell} for sweep, cell in runs
    ]
    data = {"data_efficiency": pd.DataFrame(rows)}
    stale = lambda *cells: pd.DataFrame({"sweep": "x", "cell": cells})
    assert stale_in_equal(data, stale("h")) == 0
    assert stale_in_equal(data, stale("h", "e", "e", "p")) == 2
    assert stale_in_equal(data, pd.DataFrame({"sweep": ["tuning"], "cell": ["t"]})) == 1
    assert stale_in_equal({}, stale("h")) is None
