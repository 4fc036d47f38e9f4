"""Reproducible, data-limited and cost-aware study of temporal action localization (TAL)."""

from tal_lib.errors import TalError

__version__ = "0.3.0"
__all__ = ["TalError", "__version__"]
