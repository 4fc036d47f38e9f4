"""A trained model in one file, or in a folder that can be shared.

    model.pt                one file, which `tal train` writes: weights, and everything that config.json holds
    model.safetensors       of a model folder: the weights alone, float32 or float16
    config.json             of a model folder: everything else
    README.md               of a model folder: the model card

`tal collect` writes model folders. They hold no pickle, and reading one executes nothing. Both forms hold the
statistics that standardise raw features, or say that features are used as they are. A `model.pt` of an
earlier version says neither; `warn_if_not_stated` then warns.
"""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from tal_lib import models
from tal_lib.data.benchmark import Benchmark, FeatureSpec
from tal_lib.errors import TalError
from tal_lib.files import write_torch
from tal_lib.models.parts.checkpoint_file import read_checkpoint
from tal_lib.reading import read_bytes, read_json
from tal_lib.training.saved import REMEDY, build_trained, describe
from tal_lib.validation import Finite, Positive, validate

FORMAT = 1
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
FOLDER = (WEIGHTS, CONFIG, CARD)  # the files of a model folder
STANDARDISE = "standardise.json"  # beside an exported graph: the statistics of the features that it takes
DTYPES = {"float32": torch.float32, "float16": torch.float16}
_AGAIN = "Copy the model folder again, or write it with `tal collect`."


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and standard deviation (D,) of the columns that a model reads, over its training recordings."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, benchmark: Benchmark, stream: str | None = None) -> "Statistics | None":
        """The statistics by which a benchmark standardises (a stream of) its features; None: it does not."""
        if (known := benchmark.standardised) is None:
            return None
        columns = benchmark.feature_spec.columns(stream)
        return cls(np.asarray(known.mean)[columns], np.asarray(known.std)[columns])

    def standardised(self, features: np.ndarray) -> np.ndarray:
        """Raw features (T, D) as the model was trained on them, float32."""
        return np.ascontiguousarray((features - self.mean) / self.std, dtype=np.float32)

    def plain(self) -> dict[str, Any]:
        """Their values for a file, in as few digits as give the same numbers again."""
        return {"dtype": str(self.mean.dtype)} | {
            name: [float(str(value)) for value in getattr(self, name)] for name in ("mean", "std")
        }


@dataclass(frozen=True)
class Trained:
    """A model, and what its inputs and outputs mean."""

    model: models.Detector
    classes: tuple[str, ...]
    feature_spec: FeatureSpec
    stream: str | None
    statistics: Statistics | None = None  # of raw features; None: features are used as they are
    statistics_stated: bool = True  # False: the file does not say whether features were standardised


def save_model(path: str | Path, trained: Trained) -> Path:
    """Write a trained model; the file is complete or absent."""
    content = {"format": FORMAT, **_described(trained), "state_dict": trained.model.state_dict()}
    return write_torch(path, content)


def _described(trained):
    """What `describe` reads, as plain values."""
    standardise = trained.statistics.plain() if trained.statistics else None
    return {
        "spec": models.complete_spec(trained.model),
        "classes": list(trained.classes),
        "feature_spec": {**asdict(trained.feature_spec), "streams": dict(trained.feature_spec.streams)},
        "stream": trained.stream,
        **({"standardise": standardise} if trained.statistics_stated else {}),
    }


def warn_if_not_stated(stated: bool, path: str | Path) -> None:
    """Print a warning if a model's file does not say whether its training standardised features."""
    if not stated:
        print(
            f"tal: {path}: written by an earlier version, which did not store whether the features were "
            "standardised. Features are used as they are: detections in raw features are wrong if the "
            "benchmark standardises them, as hapt does. Train (or export) the model again.",
            file=sys.stderr,
        )


def load_model(path: str | Path) -> Trained:
    """Read what `save_model` wrote, or a model folder; the model is in evaluation mode.

    In a file of an earlier version, `statistics_stated` is False.

    Raises:
        TalError: not a checkpoint, a field of a wrong type or value, or weights that do not fit.
    """
    path = Path(path)
    if path.is_dir() or path.name == WEIGHTS:
        return _load_folder(path if path.is_dir() else path.parent)
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
    trained = _built(content, content["state_dict"], path, path)
    if "standardise" not in content:
        return replace(trained, statistics_stated=False)
    values = content["standardise"]
    if values is not None:
        values = validate(_Values, values, where=path, name="standardise", remedy=REMEDY)
    return _with_statistics(trained, values, path)


def _built(content, state, where, weights):
    description = describe(
        **{name: content[name] for name in ("spec", "classes", "feature_spec", "stream")}, where=where
    )
    model = build_trained(description, state, weights)
    return Trained(model, description.classes, description.feature_spec, description.stream)


# Model folders


Columns = Annotated[list[Finite], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class _Values:
    """`Statistics` in a file."""

    dtype: Literal["float32", "float64"]
    mean: Columns
    std: Annotated[list[Positive], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class _Weights:
    """What `model.safetensors` holds."""

    dtype: Literal["float32", "float16"]
    sha256: str


@dataclass(frozen=True, kw_only=True)
class _Config:
    """The contents of `config.json`."""

    format: Literal[1]
    spec: Any  # `describe` checks this field and the next three
    classes: Any
    feature_spec: Any
    stream: Any
    standardise: _Values | None
    weights: _Weights
    training: dict[str, Any]  # where the weights come from


def folder_files(trained: Trained, dtype: str, training: dict[str, Any]) -> dict[str, bytes]:
    """File name → contents of `model.safetensors` and `config.json` of a model folder.

    Args:
        dtype: of the stored weights, `float32` or `float16`; whole numbers stay as they are.
        training: where the weights come from (benchmark, fold, licence of the data, …).
    """
    from safetensors.torch import save

    assert trained.statistics_stated, "a model folder states its statistics"

    kind = DTYPES[dtype]
    tensors = {
        name: (value.to(kind) if value.is_floating_point() else value).detach().cpu().clone().contiguous()
        for name, value in trained.model.state_dict().items()
    }
    weights = save(tensors, {"format": "pt"})
    config = {
        "format": FORMAT,
        **_described(trained),
        "weights": {"dtype": dtype, "sha256": hashlib.sha256(weights).hexdigest()},
        "training": training,
    }
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in config.items())
    return {WEIGHTS: weights, CONFIG: f"{{\n{lines}\n}}\n".encode()}


def read_config(folder: str | Path) -> dict[str, Any]:
    """`config.json` of a model folder, as plain values.

    Raises:
        TalError: missing or damaged, or a field of a wrong type.
    """
    return asdict(_config(Path(folder)))


def is_model_folder(path: str | Path) -> bool:
    """Whether a folder holds the weights or the description of a model folder."""
    return any((Path(path) / name).is_file() for name in (WEIGHTS, CONFIG))


def read_statistics(path: str | Path, width: int) -> Statistics:
    """Statistics of `width` columns, from a file with the values of `Statistics.plain`.

    Raises:
        TalError: missing or damaged, or of another number of columns.
    """
    values = validate(_Values, read_json(path), where=path, remedy=REMEDY)
    return _statistics(values, width, path)


def _config(folder):
    path = folder / CONFIG
    content = read_json(path, what="description of the model", remedy=_AGAIN)
    if isinstance(content, dict):
        known = [field.name for field in fields(_Config)]
        content = {name: content[name] for name in known if name in content}
    return validate(_Config, content, where=path, name=CONFIG, remedy=_AGAIN)


def _load_folder(folder):
    from safetensors import SafetensorError
    from safetensors.torch import load

    config, path = _config(folder), folder / WEIGHTS
    raw = read_bytes(path, what="weights", remedy=_AGAIN)
    if hashlib.sha256(raw).hexdigest() != config.weights.sha256:
        raise TalError(f"not the weights that {CONFIG} describes", where=path, remedy=_AGAIN)
    try:
        state = load(raw)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        problem = f"not readable weights ({(str(error).strip() or '?').splitlines()[0]})"
        raise TalError(problem, where=path, remedy=_AGAIN) from None
    trained = _built(vars(config), state, folder / CONFIG, path)
    return _with_statistics(trained, config.standardise, folder / CONFIG)


def _with_statistics(trained, values, where):
    """A model with the statistics of its file (`_Values`); None: features are used as they are."""
    if values is None:
        return trained
    return replace(trained, statistics=_statistics(values, trained.model.input_dim, where))


def _statistics(values, width, where):
    for name in ("mean", "std"):
        if len(getattr(values, name)) != width:
            raise TalError(
                f"{name}: {len(getattr(values, name))} values for {width} feature columns",
                where=where,
                remedy=REMEDY,
            )
    dtype = np.dtype(values.dtype)
    return Statistics(np.asarray(values.mean, dtype), np.asarray(values.std, dtype))
