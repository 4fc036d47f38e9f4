"""A trained model in one file: weights, build options, class names and feature spec."""

from dataclasses import asdict, dataclass
from pathlib import Path

from tal_lib import models
from tal_lib.data.benchmark import FeatureSpec
from tal_lib.errors import TalError
from tal_lib.files import write_torch
from tal_lib.models.parts.checkpoint_file import read_checkpoint
from tal_lib.training.saved import build_trained, describe

FORMAT = 1


@dataclass(frozen=True)
class Trained:
    """A model, and what its inputs and outputs mean."""

    model: models.Detector
    classes: tuple[str, ...]
    feature_spec: FeatureSpec
    stream: str | None


def save_model(path: str | Path, trained: Trained) -> Path:
    """Write a trained model; the file is complete or absent."""
    spec = {**asdict(trained.feature_spec), "streams": dict(trained.feature_spec.streams)}
    content = {
        "format": FORMAT,
        "spec": models.complete_spec(trained.model),
        "state_dict": trained.model.state_dict(),
        "classes": list(trained.classes),
        "feature_spec": spec,
        "stream": trained.stream,
    }
    return write_torch(path, content)


def load_model(path: str | Path) -> Trained:
    """Read what `save_model` wrote; the model is in evaluation mode.

    Raises:
        TalError: not a checkpoint, a field of a wrong type or value, or weights that do not fit.
    """
    content = read_checkpoint(path)
    missing = {"spec", "state_dict", "classes", "feature_spec", "stream"} - set(content)
    if missing:
        raise TalError(
            f"no {sorted(missing)[0]!r} in it",
            where=path,
            remedy="Give a checkpoint written by `tal train`; for authors' files use `tal released`.",
        )
    if content.get("format", FORMAT) != FORMAT:
        raise TalError(
            f"format: {content['format']!r} is not {FORMAT}",
            where=path,
            remedy="It was written by another version: use that one, or train again.",
        )
    fields = {name: content[name] for name in ("spec", "classes", "feature_spec", "stream")}
    description = describe(**fields, where=path)
    model = build_trained(description, content["state_dict"], path)
    return Trained(model, description.classes, description.feature_spec, description.stream)
