"""What one factor is worth with the plain recipe: spread of the labels, use of the time, width of the model.

runs.py           finished settings, scores of people     annotation.py  many people or many segments of each
training_time.py  more data, more steps, a larger model   size.py        accuracy against MACs and latency
front.py          which curve is on top at a cost
"""

import pandas as pd

from tal_lib.reports.factors import annotation, front, size, training_time


def write(data: dict[str, pd.DataFrame], out) -> None:
    """Write the tables and figures of all factors whose sweeps have finished settings.

    Args:
        data: tidy tables; `data_efficiency`, `people` and those of costs are read.
        out: a `tal_lib.reports.output.Output`.
    """
    annotation.write(*annotation.scores(data), out)
    training_time.write(*training_time.scores(data), out)
    front.write(data, *size.scores(data), out)
