"""Detectors: `names()` lists them, `build()` makes one."""

from tal_lib.models.checkpoints import load_checkpoint
from tal_lib.models.detector import Candidates, Detector, PostProcess
from tal_lib.models.registry import build, config, names

__all__ = ["Candidates", "Detector", "PostProcess", "build", "config", "load_checkpoint", "names"]
