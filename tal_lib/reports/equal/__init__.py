"""The main arm of the study for readers: every model with the same recipe and the same tuning.

arms.py        which runs, and the scores of people      pairs.py       every pair of models
ranking.py     means, intervals, letters                 factorial.py   architecture × recipe
tuning.py      trials and chosen settings                transfer.py    one benchmark's ranking and another's
components.py  person, subset sample, training seed      recompute.py   the headline from detections alone
sentences.py   the findings in words                     page.py        the ranking for README and RESULTS
"""

import pandas as pd

from tal_lib.reports.equal import components, factorial, pairs, ranking, transfer, tuning
from tal_lib.reports.equal.arms import MAIN, PLAIN, scores_of, training_segments, tuned_benchmarks


def write(data: dict[str, pd.DataFrame], out) -> pd.DataFrame:
    """Write all tables and figures of the equal arm that the runs allow, and return its ranking.

    Args:
        data: tidy tables; `data_efficiency` and `people` are read.
        out: a `tal_lib.reports.output.Output`.
    """
    data = data | {"tuning_trials": tuning.write(out)}
    components.write(*components.components_of_variance(data), out)
    scores = scores_of(data, MAIN)
    if not scores:
        return pd.DataFrame(columns=ranking.COLUMNS)
    table = pairs.comparison(scores)
    ranked = ranking.ranking(scores, table)
    tuned = tuned_benchmarks(data["tuning_trials"])
    ranking.write(ranked, ranking.left_out(scores, ranked), scores, tuned, out)
    pairs.write(table, out)
    plain = scores_of(data, PLAIN)
    arms, segments = {"plain": plain, "equal": scores}, training_segments(data, MAIN)
    factorial.write(*factorial.factorial(scores, plain), arms, segments, out)
    transfer.write(transfer.between_benchmarks(scores), tuned, out)
    return ranked
