"""The description and the weights in a saved model: each field is checked before a model is built."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from tal_lib import models
from tal_lib.data.benchmark import FeatureSpec
from tal_lib.errors import TalError
from tal_lib.validation import validate

REMEDY = "The file is damaged or of another version: copy it again, or train and export the model again."
LARGEST_SIZE = 2**20  # feature columns, or classes


def _class_name(value: str) -> str:
    if not value.strip():
        raise ValueError("a class name (text that is not blank)")
    return value


Size = Annotated[int, Field(ge=1, le=LARGEST_SIZE, strict=True)]
ClassName = Annotated[str, AfterValidator(_class_name)]


@dataclass(frozen=True, kw_only=True)
class BuildSpec:
    """How to build a model: the arguments of `models.build`."""

    name: str
    preset: str
    input_dim: Size
    num_classes: Size
    overrides: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Description:
    """How to build a model, and what its inputs and outputs mean."""

    spec: BuildSpec
    classes: tuple[str, ...]
    feature_spec: FeatureSpec
    stream: str | None


def describe(*, spec, classes, feature_spec, stream, where: object) -> Description:
    """A description from the plain values of a file.

    Raises:
        TalError: a field of a wrong type or value, or fields that contradict each other.
    """

    def check(kind, value, name) -> Any:
        return validate(kind, value, where=where, name=name, remedy=REMEDY)

    def require(holds, problem):
        if not holds:
            raise TalError(problem, where=where, remedy=REMEDY)

    described = Description(
        spec=check(BuildSpec, spec, "spec"),
        classes=tuple(check(list[ClassName], classes, "classes")),
        feature_spec=check(FeatureSpec, feature_spec, "feature_spec"),
        stream=check(str | None, stream, "stream"),
    )
    build, names = described.spec, described.classes
    require(
        len(set(names)) == len(names),
        f"classes: {Counter(names).most_common(1)[0][0] if names else ''!r} is listed twice",
    )
    require(
        len(names) == build.num_classes,
        f"classes: {len(names)} names for spec.num_classes: {build.num_classes}",
    )
    streams = described.feature_spec.streams
    require(
        described.stream is None or described.stream in streams,
        f"stream: {described.stream!r} is not among feature_spec.streams ({', '.join(streams)})",
    )
    width = described.feature_spec.dim if described.stream is None else streams[described.stream]
    require(
        width == build.input_dim,
        f"feature_spec.streams: {width} columns for spec.input_dim: {build.input_dim}",
    )
    return described


def build_described(description: Description, where: object) -> models.Detector:
    """The untrained model of a description, in evaluation mode.

    Raises:
        TalError: no such model can be built.
    """
    try:
        model = models.build_from(asdict(description.spec))
    except Exception as error:  # options from a file may raise anything in a model
        kind = "" if isinstance(error, TalError) else f"{type(error).__name__}: "
        raise TalError(
            f"spec: no such model can be built ({kind}{(str(error).strip() or '?').splitlines()[0]})",
            where=where,
            remedy=REMEDY,
        ) from None
    model.class_names = description.classes
    return model.eval()


def build_trained(description: Description, state, where: object) -> models.Detector:
    """The model of a description with the weights of a `state_dict`, in evaluation mode.

    Raises:
        TalError: no such model can be built, or the weights do not fit it.
    """
    try:
        with torch.device("meta"):  # allocates nothing before the sizes are checked
            expected = models.build_from(asdict(description.spec)).state_dict()
    except Exception:  # the model computes constants from values, or cannot be built
        expected = None
    if expected is not None:
        _check_weights(expected, state, where)
    model = build_described(description, where)
    if expected is None:
        _check_weights(model.state_dict(), state, where)
    model.load_state_dict(state)
    return model


def _check_weights(expected: Mapping[str, Tensor], state, where) -> None:
    """Raise `TalError` unless a `state_dict` has finite values of the expected names, kinds and shapes."""

    def require(holds, problem):
        if not holds:
            raise TalError(f"state_dict: {problem}", where=where, remedy=REMEDY)

    require(isinstance(state, Mapping), f"{type(state).__name__} instead of tensors by name")
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    more = f" (and {len(missing + unknown) - 1} more)" if len(missing + unknown) > 1 else ""
    require(not missing, f"tensor {missing[0] if missing else ''} is missing{more}")
    require(not unknown, f"the model has no tensor {unknown[0] if unknown else ''!r}{more}")
    for name, tensor in expected.items():
        value = state[name]
        require(isinstance(value, Tensor), f"{name} is {type(value).__name__}, not a tensor")
        require(
            value.shape == tensor.shape,
            f"{name} has shape {tuple(value.shape)}, the model needs {tuple(tensor.shape)}",
        )
        same_kind = value.is_floating_point() if tensor.is_floating_point() else value.dtype == tensor.dtype
        require(
            same_kind and value.layout == torch.strided and value.device.type == "cpu",
            f"{name} holds {value.dtype} ({value.layout}, {value.device.type}), "
            f"the model needs {tensor.dtype}",
        )
        require(
            not value.is_floating_point() or bool(torch.isfinite(value.float()).all()),
            f"{name} holds NaN or infinite values",
        )
