"""Annotations and detections as files of annotation tools, for correction by a person. One file a tool."""

from tal_lib.data.exporting import elan, via
from tal_lib.data.exporting.collect import Layers, layers

FORMATS = {"elan": elan, "via": via}

__all__ = ["FORMATS", "Layers", "layers"]
