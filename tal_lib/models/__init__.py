"""Detectors: `names()` lists them, `build()` makes one."""

from tal_lib.models.checkpoints import load_checkpoint
from tal_lib.models.detector import Candidates, Detector, PostProcess
from tal_lib.models.registry import build, build_from, config, names

__all__ = ["Candidates", "Detector", "PostProcess", "build", "build_from", "config", "load_checkpoint", "names"]
