"""Cost of a model: parameters, MACs, memory, latency, energy, training, and growth with length."""

from tal_lib.cost.growth import growth, growth_table, longest_text, longest_within
from tal_lib.cost.inference_length import window_costs
from tal_lib.cost.isolated import DoesNotFit
from tal_lib.cost.machine import describe_machine
from tal_lib.cost.macs import count_macs
from tal_lib.cost.passes import cost_table, profile_all
from tal_lib.cost.profile import CostRow, peak_within, profile
from tal_lib.cost.quantization import VARIANTS, Quantized, compare_latency, quantize, write_graphs
from tal_lib.cost.training import Milestones, TrainingCostRow, milestones, profile_training

__all__ = [
    "VARIANTS",
    "CostRow",
    "DoesNotFit",
    "Milestones",
    "Quantized",
    "TrainingCostRow",
    "compare_latency",
    "cost_table",
    "count_macs",
    "describe_machine",
    "growth",
    "growth_table",
    "longest_text",
    "longest_within",
    "milestones",
    "peak_within",
    "profile",
    "profile_all",
    "profile_training",
    "quantize",
    "window_costs",
    "write_graphs",
]
