"""Which measured costs are of the models as they are built today."""

from functools import cache

import pandas as pd

from tal_lib.errors import TalError
from tal_lib.models import build


@cache
def _params(model, preset, input_dim, num_classes):
    """Parameters of a model as it is built today; None if this session does not know it."""
    try:
        built = build(model, input_dim=input_dim, num_classes=num_classes, preset=preset)
    except TalError:
        return None
    return sum(parameter.numel() for parameter in built.parameters())


def as_built_today(cost: pd.DataFrame) -> pd.DataFrame:
    """Rows of costs without those of a model that has another number of parameters today.

    Such rows are of a former design under the same name. Rows with options of their own stay.
    """
    needed = ["model", "preset", "input_dim", "num_classes", "params"]
    if cost.empty or not set(needed) <= set(cost):
        return cost
    options = cost["options"].fillna("") if "options" in cost else pd.Series("", index=cost.index)
    former = [
        not option
        and params == params
        and _params(model, preset, int(dim), int(classes)) not in (None, params)
        for option, (model, preset, dim, classes, params) in zip(
            options, cost[needed].itertuples(index=False, name=None)
        )
    ]
    return cost[[not each for each in former]].reset_index(drop=True)
