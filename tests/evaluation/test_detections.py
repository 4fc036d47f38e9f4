import json

import pandas as pd
import pytest

from tal_lib import TalError
from tal_lib.evaluation import read_detections, write_detections


def test_round_trip(tmp_path):
    table = pd.DataFrame(
        [("a", 0.5, 2.25, "x", 0.9), ("b", 1.0, 2.0, "y", 0.125)],
        columns=["recording", "start", "end", "label", "score"],
    )
    path = write_detections(tmp_path / "d.json", table)
    pd.testing.assert_frame_equal(read_detections(path), table, check_dtype=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"results": {"a": [{"label": "x", "sco', "not valid JSON"),
        ("[]", "another shape"),
        ('{"database": {}}', "another shape"),
        (json.dumps({"results": {"rec7": [{"label": "x", "segment": [1, 2]}]}}), "recording rec7.*score"),
        (
            json.dumps({"results": {"rec7": [{"label": "x", "score": 1, "segment": [3, 2]}]}}),
            "rec7.*ends before",
        ),
        (json.dumps({"results": {"rec7": [{"label": "x", "score": 1, "segment": [3]}]}}), "rec7"),
        ('{"results": {"a": [{"label": "x", "score": NaN, "segment": [1, 2]}]}}', "not finite"),
    ],
)
def test_broken_files_are_named(tmp_path, text, message):
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(TalError, match=message) as error:
        read_detections(tmp_path / "d.json")
    assert "d.json" in str(error.value)
