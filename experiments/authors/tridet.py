"""TriDet against its authors' code, dingfengshi/TriDet."""

from collections.abc import Iterator
from pathlib import Path

from experiments.authors import Row, pyramids

FOLDER = "TriDet"
MODELS = ("tridet",)
PUBLISHED = pyramids.Published(
    "tridet",
    "thumos_i3d.yaml",
    heads=("cls_head", "reg_head", "start_head", "end_head"),
    activitynet="anet_tsp.yaml",
)


def rows(clone: Path, model: str) -> Iterator[Row]:
    """Its rows of the fidelity table."""
    yield from pyramids.rows(clone, PUBLISHED)
