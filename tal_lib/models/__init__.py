"""Detectors: `names()` lists them, `build()` makes one."""

from tal_lib.models.detector import Candidates, Detector, PostProcess
from tal_lib.models.registry import build, config, names

__all__ = ["Candidates", "Detector", "PostProcess", "build", "config", "names"]
