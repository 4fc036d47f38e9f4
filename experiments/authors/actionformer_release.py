"""ActionFormer against its authors' code, happyharrycn/actionformer_release."""

from collections.abc import Iterator
from pathlib import Path

from experiments.authors import Row, pyramids

FOLDER = "actionformer_release"
MODELS = ("actionformer",)
PUBLISHED = pyramids.Published("actionformer", "thumos_i3d.yaml", activitynet="anet_tsp.yaml")


def rows(clone: Path, model: str) -> Iterator[Row]:
    """Its rows of the fidelity table."""
    yield from pyramids.rows(clone, PUBLISHED)
