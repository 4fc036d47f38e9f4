"""Tables of the diagnosis."""

import pandas as pd

from tal_lib.reports import diagnosis


def test_normalized_map_stands_beside_the_published_one():
    rows = pd.DataFrame(
        {
            "analysis": ["map_n", "map_n", "map_n", "missed"],
            "characteristic": ["all", "all", "length", "all"],
            "fraction": 1.0,
            "preset": "compact",
            "model": "actionformer",
            "value": [92.0, 94.0, 10.0, 3.0],
        }
    )
    table = diagnosis.beside_published(rows).set_index("model")
    assert table.loc["actionformer"].tolist() == [94.32, 93.0]
    assert table.published["TinyHAR"] == 32.33 and table.ours.isna().sum() == 6
