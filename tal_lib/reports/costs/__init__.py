"""What models cost, for readers.

inference.py   time, memory and MACs against length    growth.py        its growth, the longest recording
repeatability.py  how far a latency repeats            training.py      steps, memory, time to accuracy
quantization.py   lower precision                      deployment.py    export, inference on windows
prior.py       beside the prior study's                accuracy.py      against accuracy
precision.py   training in mixed precision             checks.py        models on another device
page.py        the pages that show the ledger
end_to_end.py  from a video file to detections
"""

from tal_lib.reports.costs import end_to_end
from tal_lib.reports.costs.growth import (
    GROWTH_CAPTION,
    exponents_of,
    growth_for_readers,
    longest_recordings,
)
from tal_lib.reports.costs.inference import cost_by_length, of_common_lengths, spread_of_memory
from tal_lib.reports.costs.page import machine_in_words, measured
from tal_lib.reports.costs.prior import PRIOR, beside_prior
from tal_lib.reports.costs.quantization import gained
from tal_lib.reports.costs.repeatability import repeatability, repeats
from tal_lib.reports.costs.shapes import COSTS, conditions, interval

__all__ = [
    "COSTS",
    "GROWTH_CAPTION",
    "PRIOR",
    "beside_prior",
    "conditions",
    "cost_by_length",
    "end_to_end",
    "exponents_of",
    "gained",
    "growth_for_readers",
    "interval",
    "longest_recordings",
    "machine_in_words",
    "measured",
    "of_common_lengths",
    "repeatability",
    "repeats",
    "spread_of_memory",
]
