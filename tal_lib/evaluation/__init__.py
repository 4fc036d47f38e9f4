"""Evaluation: mAP, AR@AN, error diagnosis, detection and class-score files, statistics over seeds."""

from tal_lib.evaluation.average_precision import average_precision, check_tious, mean_average_precision
from tal_lib.evaluation.class_scores import fuse, read_class_scores
from tal_lib.evaluation.detections import read_detections, write_detections
from tal_lib.evaluation.diagnosis import diagnose, error_types
from tal_lib.evaluation.matching import match_detection_labels, match_detections, match_recordings
from tal_lib.evaluation.names import wrong_names_map
from tal_lib.evaluation.nested import by_person
from tal_lib.evaluation.proposals import area_under_recall, average_recall
from tal_lib.evaluation.taxonomy import Taxonomy, map_at_level, mean_precision, read_taxonomy
from tal_lib.segments import nms, soft_nms, tiou

__all__ = [
    "Taxonomy",
    "area_under_recall",
    "average_precision",
    "average_recall",
    "by_person",
    "check_tious",
    "diagnose",
    "error_types",
    "fuse",
    "map_at_level",
    "match_detection_labels",
    "match_detections",
    "match_recordings",
    "mean_average_precision",
    "mean_precision",
    "nms",
    "read_class_scores",
    "read_detections",
    "read_taxonomy",
    "soft_nms",
    "tiou",
    "write_detections",
    "wrong_names_map",
]
