"""What models cost, for readers.

inference.py   time, memory and MACs against length    repeatability.py  how far a latency repeats
training.py    steps, memory, time to accuracy         deployment.py     lower precision, export, windows
prior.py       beside the prior study's                accuracy.py       against accuracy
end_to_end.py  from a video file to detections
"""

from tal_lib.reports.costs.prior import PRIOR, beside_prior
from tal_lib.reports.costs.repeatability import repeatability, repeats
from tal_lib.reports.costs.shapes import COSTS, conditions

__all__ = ["COSTS", "PRIOR", "beside_prior", "conditions", "repeatability", "repeats"]
