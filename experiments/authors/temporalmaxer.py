"""TemporalMaxer against its authors' code, TuanTNG/TemporalMaxer."""

from collections.abc import Iterator
from pathlib import Path

from experiments.authors import Row, pyramids

FOLDER = "TemporalMaxer"
MODELS = ("temporalmaxer",)
PUBLISHED = pyramids.Published("temporalmaxer", "temporalmaxer_thumos_i3d.yaml")


def rows(clone: Path, model: str) -> Iterator[Row]:
    """Its rows of the fidelity table."""
    yield from pyramids.rows(clone, PUBLISHED)
