"""Cost of a model: parameters, MACs, memory, latency, energy; and how they grow with the length."""

from tal_lib.cost.growth import growth, growth_table, longest_within
from tal_lib.cost.isolated import DoesNotFit
from tal_lib.cost.machine import describe_machine
from tal_lib.cost.macs import count_macs
from tal_lib.cost.profile import CostRow, profile

__all__ = ["CostRow", "DoesNotFit", "count_macs", "describe_machine", "growth", "growth_table", "longest_within", "profile"]
