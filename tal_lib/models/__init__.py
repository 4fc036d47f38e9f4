"""Detectors: `names()` lists them, `build()` makes one."""

from tal_lib.models.parts.candidates import Candidates, PostProcess
from tal_lib.models.parts.detector import Detector
from tal_lib.models.parts.registry import build, build_from, config, names
from tal_lib.models.released import load_checkpoint

__all__ = [
    "Candidates",
    "Detector",
    "PostProcess",
    "build",
    "build_from",
    "config",
    "load_checkpoint",
    "names",
]
