"""A trained model in one file: weights, how to build it, class names and feature spec."""

from dataclasses import asdict, dataclass
from pathlib import Path

from tal_lib import models
from tal_lib.data.benchmark import FeatureSpec
from tal_lib.errors import TalError
from tal_lib.files import write_torch
from tal_lib.models.parts.checkpoint_file import read_checkpoint

FORMAT = 1


@dataclass(frozen=True)
class Trained:
    """A model with what its outputs mean."""

    model: models.Detector
    classes: tuple[str, ...]
    feature_spec: FeatureSpec
    stream: str | None


def save_model(path: str | Path, trained: Trained) -> Path:
    """Write a trained model, whole or not at all."""
    spec = {**asdict(trained.feature_spec), "streams": dict(trained.feature_spec.streams)}
    content = {
        "format": FORMAT,
        "spec": trained.model.spec,
        "state_dict": trained.model.state_dict(),
        "classes": list(trained.classes),
        "feature_spec": spec,
        "stream": trained.stream,
    }
    return write_torch(path, content)


def load_model(path: str | Path) -> Trained:
    """Read what `save_model` wrote; the model is in evaluation mode."""
    content = read_checkpoint(path)
    missing = {"spec", "state_dict", "classes", "feature_spec", "stream"} - set(content)
    if missing:
        raise TalError(
            f"no {sorted(missing)[0]!r} in it",
            where=path,
            remedy="Give a checkpoint written by `tal train`; authors' files go to models.load_checkpoint.",
        )
    spec = content["spec"]
    try:
        model = models.build_from(spec)
        model.load_state_dict(
            content["state_dict"]
        )  # the texts of the classes with it, where the model reads names
        model.class_names = tuple(content["classes"])
        features = FeatureSpec(**content["feature_spec"])
    except Exception as error:  # whatever a file may say of itself
        raise TalError(
            f"does not fit the model it names ({(str(error) or type(error).__name__).splitlines()[0]})",
            where=path,
            remedy="It is damaged or of another version; train it again.",
        ) from None
    return Trained(model.eval(), tuple(content["classes"]), features, content["stream"])
