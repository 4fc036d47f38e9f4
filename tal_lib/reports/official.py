"""The owners' split of HAPT with the plain recipe: for comparison with other studies, not for a ranking."""

import pandas as pd

from tal_lib.reports import folds, tables
from tal_lib.reports.efficiency.runs import FLOOR
from tal_lib.reports.equal.arms import percent

BENCHMARK = "hapt"
PLAIN = {"epochs=1", "min_steps=400", "max_steps=576"}  # docs/protocol.md


def scores(efficiency: pd.DataFrame) -> pd.DataFrame:
    """`fraction, model, avg_map` (%) of the compact models with the plain recipe on the official split of
    HAPT, and of the floor. One training each. Best first.

    Args:
        efficiency: the tidy table `data_efficiency`.
    """
    columns = ["fraction", "model", "avg_map"]
    rows = folds.on_official_split(efficiency)
    if "fold" not in rows or not len(rows):
        return pd.DataFrame(columns=columns)
    rows = rows.fillna({"recipe": "", "options": "", "stream": ""})
    plain = rows.recipe.map(lambda text: set(text.split(", ")) == PLAIN) | (rows.model == FLOOR)
    rows = rows[plain & (rows.benchmark == BENCHMARK) & (rows.options == "")]
    rows = rows[(rows.preset == "compact") & (rows.seed == 0) & (rows.stream == "")]
    runs = tables.average_map(rows) if len(rows) else rows.assign(avg_map=0.0)
    means = runs.groupby(columns[:2], as_index=False).avg_map.mean()
    return means.sort_values(["fraction", "avg_map"], ascending=[True, False], ignore_index=True)


def write(data: dict[str, pd.DataFrame], out) -> None:
    """Write the scores, tidy and for readers; nothing if fewer than two models were trained so."""
    known = scores(data.get("data_efficiency", pd.DataFrame()))
    if known.model.nunique() < 3:  # two models and the floor
        return
    out.data(known, f"official_{BENCHMARK}")
    wide = known.pivot(index="model", columns="fraction", values="avg_map")
    wide = wide.sort_values(wide.columns[-1], ascending=False).rename(columns=percent)
    shown = folds.in_tenths(wide).reset_index()
    caption = (
        f"avg mAP (%) on the official split of {BENCHMARK} by label fraction: plain recipe, untuned, one "
        "training each. For comparison with other studies: without intervals this is no ranking."
    )
    out.table(shown, f"official_{BENCHMARK}", caption, tables.Best(high=tuple(shown.columns[1:])))
