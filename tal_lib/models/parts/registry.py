"""Models by name: every class decorated with `register` can be built, swept, tested and measured."""

import functools
import importlib
import pkgutil

from tal_lib.errors import TalError
from tal_lib.models.parts.detector import Detector, override

_MODELS: dict[str, tuple[type[Detector], dict]] = {}


def register(name: str, **presets):
    """Class decorator: make a model buildable as `name`, with a config for each preset."""

    def add(cls):
        if name in _MODELS:
            raise TalError(f"two models are called {name!r}")
        _MODELS[name] = (cls, presets)
        return cls

    return add


@functools.cache
def _load():
    """Import every module of the package once, so that each model has registered itself."""
    package = importlib.import_module("tal_lib.models")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"tal_lib.models.{module.name}")


def names() -> list[str]:
    """Names of all models."""
    _load()
    return sorted(_MODELS)


def config(name: str, preset: str = "compact", **overrides):
    """The configuration `build` would use."""
    _load()
    if name not in _MODELS:
        raise TalError(f"no model {name!r}", remedy=f"Choose from {', '.join(names())}.")
    presets = _MODELS[name][1]
    if preset not in presets:
        raise TalError(f"{name} has no preset {preset!r}", remedy=f"Choose from {', '.join(presets)}.")
    return override(presets[preset], **overrides)


def build(name: str, *, input_dim: int, num_classes: int, preset: str = "compact", **overrides) -> Detector:
    """A new, untrained model.

    Args:
        input_dim: feature columns D; num_classes: K; preset: `compact` or `paper`.
        overrides: options of the model's config (or of its post-processing) by name.
    """
    if input_dim < 1 or num_classes < 1:
        raise TalError(f"input_dim={input_dim}, num_classes={num_classes}", remedy="Both must be at least 1.")
    model = class_of(name)(config(name, preset, **overrides), input_dim, num_classes)
    model.spec = {
        "name": name,
        "preset": preset,
        "input_dim": input_dim,
        "num_classes": num_classes,
        "overrides": overrides,
    }
    return model


def build_from(spec: dict) -> Detector:
    """A new, untrained model from the `spec` that `build` gave another."""
    return build(
        spec["name"],
        input_dim=spec["input_dim"],
        num_classes=spec["num_classes"],
        preset=spec["preset"],
        **spec["overrides"],
    )


def has_separate_classifier(name: str) -> bool:
    """Whether a model's proposals are classified by the study's own stage; tables say so beside its name."""
    _load()
    return name in _MODELS and _MODELS[name][0].separate_classifier


def presets(name: str) -> list[str]:
    """Names of a model's presets."""
    _load()
    return list(_MODELS[name][1])


def class_of(name: str) -> type[Detector]:
    """The class that `build` makes."""
    config(name)  # raises for an unknown name
    return _MODELS[name][0]
