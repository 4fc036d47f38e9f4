"""Cost of a model: parameters, MACs, memory, latency."""

from tal_lib.cost.macs import count_macs
from tal_lib.cost.profile import CostRow, profile

__all__ = ["CostRow", "count_macs", "profile"]
