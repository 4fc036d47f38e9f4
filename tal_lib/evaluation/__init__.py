"""Evaluation: mAP, NMS, files of detections, statistics over seeds."""

from tal_lib.evaluation.average_precision import average_precision, mean_average_precision
from tal_lib.evaluation.detections import read_detections, write_detections
from tal_lib.models.nms import nms, soft_nms, tiou

__all__ = ["average_precision", "mean_average_precision", "nms", "read_detections", "soft_nms", "tiou",
           "write_detections"]
