"""Sweeps: run a grid of notebooks, with resume. The ledger has one line per finished cell."""

from tal_lib.sweeps.detections import kept_lines
from tal_lib.sweeps.grid import Cell, plan, plan_some
from tal_lib.sweeps.identity import Code, current_code, stale_records, uncommitted_records
from tal_lib.sweeps.ledger import ledgers, read_all, read_ledger
from tal_lib.sweeps.recording import record
from tal_lib.sweeps.runner import SweepResult, detections_missing, run
from tal_lib.sweeps.states import state_lines, states_of
from tal_lib.sweeps.trained import checkpoint_of, trained_in
from tal_lib.sweeps.verify import Verdict, verify
from tal_lib.sweeps.verify import candidates as verify_candidates

__all__ = [
    "Cell",
    "Code",
    "SweepResult",
    "Verdict",
    "checkpoint_of",
    "current_code",
    "detections_missing",
    "kept_lines",
    "ledgers",
    "plan",
    "plan_some",
    "read_all",
    "read_ledger",
    "record",
    "run",
    "stale_records",
    "state_lines",
    "states_of",
    "trained_in",
    "uncommitted_records",
    "verify",
    "verify_candidates",
]
