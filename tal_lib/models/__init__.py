"""Detectors: `names()` lists them, `build()` makes one."""

from tal_lib.models.parts.candidates import Candidates, PostProcess
from tal_lib.models.parts.detector import Detector, DetectorConfig
from tal_lib.models.parts.registry import (
    build,
    build_from,
    complete_spec,
    config,
    every_name,
    families,
    family,
    names,
    presets,
    register,
)
from tal_lib.models.released import load_checkpoint

__all__ = [
    "Candidates",
    "Detector",
    "DetectorConfig",
    "PostProcess",
    "build",
    "build_from",
    "complete_spec",
    "config",
    "every_name",
    "families",
    "family",
    "load_checkpoint",
    "names",
    "presets",
    "register",
]
