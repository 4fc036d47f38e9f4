"""From videos and cameras to features and detections."""

from tal_lib.video.backbones import Backbone, backbone, backbone_for, backbones
from tal_lib.video.extract import extract
from tal_lib.video.frames import Reader, write_video
from tal_lib.video.live import LiveDetector

__all__ = [
    "Backbone",
    "LiveDetector",
    "Reader",
    "backbone",
    "backbone_for",
    "backbones",
    "extract",
    "write_video",
]
