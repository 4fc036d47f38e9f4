"""Models by name: every class decorated with `register` can be built, swept, tested and measured.

They come from the files of `tal_lib/models/` and from plug-ins (`tal_lib.plugins`). Where a file cannot be
imported, the others still work: it is in `broken()`, and is named where its model is asked for.
"""

import functools
import importlib
import pkgutil
from dataclasses import asdict, dataclass

from tal_lib import plugins
from tal_lib.errors import TalError
from tal_lib.files import checked_name
from tal_lib.models.parts.detector import Detector, DetectorConfig, override
from tal_lib.validation import LARGEST_SIZE, Size, require, unknown_name, validate

FAMILIES = ("one_stage", "set_prediction", "proposals", "dense", "language")
OTHER = "other"  # of a plug-in that names none
FLOOR = "floor"  # baselines that read no feature: no part of `all`, no network to measure


@dataclass(frozen=True)
class Entry:
    """A registered model."""

    model: type[Detector]
    presets: dict[str, DetectorConfig]
    family: str


_MODELS: dict[str, Entry] = {}
_broken: dict[str, str] = {}  # of this package: module -> why it could not be imported


def register(name: str, *, family: str = OTHER, **presets: DetectorConfig):
    """Class decorator: make a model buildable as `name`, with a config for each preset.

    Args:
        family: one of `FAMILIES`, or a word of a plug-in's own; a sweep can ask for a family.

    Raises:
        TalError: the name is taken, is none, or there is no preset `compact`.
    """
    checked_name(name, what="model", whole=False)
    checked_name(family, what="family", whole=False)
    require("compact" in presets, f"model {name} has no preset compact", "Register one.")
    require(name not in (*FAMILIES, OTHER, "all"), f"a model cannot be called {name}", "Choose another name.")

    def add(cls):
        if name in _MODELS and _MODELS[name].model.__module__ != cls.__module__:
            raise TalError(f"two models are called {name!r}", remedy="Rename one of them.")
        _MODELS[name] = Entry(cls, presets, family)
        return cls

    return add


@functools.cache
def _load_package():
    package = importlib.import_module("tal_lib.models")
    for module in pkgutil.iter_modules(package.__path__):
        try:
            importlib.import_module(f"tal_lib.models.{module.name}")
        except (Exception, SystemExit) as error:
            _broken[f"tal_lib.models.{module.name}"] = plugins.reason(error)


def _load():
    """Import what registers models: this package once, and plug-ins that were named since."""
    _load_package()
    plugins.load()
    for name in [name for name, entry in _MODELS.items() if entry.model.__module__ in broken()]:
        del _MODELS[name]  # its file registered it and failed further down


def broken() -> dict[str, str]:
    """Modules that could not be loaded → why, in one line."""
    return _broken | plugins.broken()


def names() -> list[str]:
    """Names of all detectors that read features, plug-ins too."""
    return [name for name in every_name() if _MODELS[name].family != FLOOR]


def every_name() -> list[str]:
    """`names()`, and the baselines that read no features."""
    _load()
    return sorted(_MODELS)


def family(name: str) -> str:
    """Family of a model: one of `FAMILIES`, or a plug-in's own."""
    return _entry(name).family


def families() -> dict[str, list[str]]:
    """Family → names of its models."""
    groups: dict[str, list[str]] = {}
    for name in names():
        groups.setdefault(_MODELS[name].family, []).append(name)
    return groups


def origin(name: str) -> str:
    """Where a model comes from: its module, or the file of its plug-in."""
    module = _entry(name).model.__module__
    files = {plugins.module_of(file): str(file) for file in plugins.files()}
    return files.get(module, module)


def presets(name: str) -> list[str]:
    """Names of a model's presets."""
    return list(_entry(name).presets)


def _entry(name):
    _load()
    if name in _MODELS:
        return _MODELS[name]
    for module, why in broken().items():
        stem = module.removeprefix("tal_lib.models.")
        if stem == name or stem.startswith(f"tal_plugin_{name}_"):
            raise TalError(
                f"model {name} cannot be loaded: {why}",
                remedy=f"Correct its file. The other models work: {', '.join(names())}.",
            )
    error = unknown_name(name, every_name(), name="model")
    if broken():
        remarks = "; ".join(f"{module} ({why})" for module, why in broken().items())
        error = TalError(error.problem, remedy=f"{error.remedy} Not loaded: {remarks}.")
    raise error


def config(name: str, preset: str = "compact", **overrides):
    """The configuration `build` would use.

    Raises:
        TalError: no such model, preset or option, or a value that the option does not take.
    """
    entry = _entry(name)
    if preset not in entry.presets:
        raise unknown_name(preset, entry.presets, where=name, name="preset")
    try:
        chosen = override(entry.presets[preset], **overrides)
        chosen.check_models()
    except TalError as error:
        raise error.at(name) from None
    return chosen


def build(name: str, *, input_dim: int, num_classes: int, preset: str = "compact", **overrides) -> Detector:
    """A new, untrained model.

    Args:
        input_dim: feature columns D; num_classes: K; preset: `compact` or `paper`.
        overrides: options of the model's config (or of its post-processing) by name.

    Raises:
        TalError: no such model, preset or option, a value that it does not take, or a model too large.
    """
    input_dim = validate(Size, input_dim, name="input_dim", remedy=f"Give 1 to {LARGEST_SIZE:,} columns.")
    num_classes = validate(
        Size, num_classes, name="num_classes", remedy=f"Give 1 to {LARGEST_SIZE:,} classes."
    )
    chosen = config(name, preset, **overrides)
    try:
        model = _entry(name).model(chosen, input_dim, num_classes)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error) or "too large" in str(error):
            raise TalError(
                "its weights do not fit into memory", where=name, remedy="Choose smaller widths."
            ) from None
        raise
    model.spec = {
        "name": name,
        "preset": preset,
        "input_dim": input_dim,
        "num_classes": num_classes,
        "overrides": overrides,
    }
    return model


def complete_spec(model: Detector) -> dict:
    """A model's `spec` with the value of every option, for a file: it stays true when a default changes."""
    return model.spec | {"overrides": asdict(model.config)}


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
    return name in _MODELS and _MODELS[name].model.separate_classifier


def class_of(name: str) -> type[Detector]:
    """The class that `build` makes."""
    return _entry(name).model
