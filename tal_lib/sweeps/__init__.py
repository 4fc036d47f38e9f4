"""Sweeps: a grid of notebook runs, resumable, one ledger line a finished cell."""

from tal_lib.sweeps.grid import Cell, plan
from tal_lib.sweeps.ledger import ledgers, read_all, read_ledger
from tal_lib.sweeps.recording import record
from tal_lib.sweeps.runner import SweepResult, run
from tal_lib.sweeps.trained import checkpoint_of, trained_in
from tal_lib.sweeps.verify import Verdict, verify

__all__ = [
    "Cell",
    "SweepResult",
    "Verdict",
    "checkpoint_of",
    "ledgers",
    "plan",
    "read_all",
    "read_ledger",
    "record",
    "run",
    "trained_in",
    "verify",
]
