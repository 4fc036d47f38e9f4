"""TemporalMaxer against its authors' code, TuanTNG/TemporalMaxer.

Two of their settings have a layer norm before the heads; they are compared at one length.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from experiments.authors import Row, parameters, pyramids

FOLDER = "TemporalMaxer"
MODELS = ("temporalmaxer",)
PUBLISHED = pyramids.Published("temporalmaxer", "temporalmaxer_thumos_i3d.yaml")
# their settings with a layer norm before the heads -> options of our model
LAYER_NORM = {
    "EPIC-Kitchens verb": ("temporalmaxer_epic_slowfast_verb.yaml", {}),
    "MultiTHUMOS": ("temporalmaxer_multithumos_i3d.yaml", {"embedding_layers": 3}),
}


def rows(clone: Path, model: str) -> Iterator[Row]:
    """Its rows of the fidelity table."""
    yield from pyramids.rows(clone, PUBLISHED)
    for name, (setting, options) in LAYER_NORM.items():
        yield from layer_norm_rows(clone, name, setting, options)


def layer_norm_rows(clone: Path, name: str, setting: str, options: dict) -> Iterator[Row]:
    """Parameters, and raw outputs at 577 steps."""
    published = replace(PUBLISHED, setting=setting)
    theirs = pyramids.authors_model(clone, published)
    ours = pyramids.released_stand_in("temporalmaxer", theirs, **options)
    counts = parameters(ours), parameters(theirs)
    difference = abs(counts[0] - counts[1])
    yield Row("temporalmaxer", "parameters", name, *counts, difference, 0, "trainable parameters, counted")
    yield from pyramids.forward_rows(published, ours, theirs, (577,), f"{name}, ")
