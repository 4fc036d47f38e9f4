"""An exported model (`tal_lib.export`), used in place of a network.

What loading a graph may execute:

    model.onnx   data only: ONNX Runtime computes what it describes
    model.pt2    torch evaluates formulas in it as Python, and may unpickle constants: it can run any code
    model.ts     TorchScript is a program: it can read and write files

So ONNX is preferred if a folder has it. The others need `trust=True` (`--trust`). A graph that this process
has exported is trusted.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import AfterValidator
from torch import Tensor

from tal_lib.errors import TalError
from tal_lib.models import Detector
from tal_lib.models.parts.candidates import Candidates
from tal_lib.models.parts.pyramid import PyramidDetector
from tal_lib.reading import read_json
from tal_lib.training.saved import REMEDY, build_described, describe
from tal_lib.validation import Finite, validate

ABOUT = "model.json"
FORMATS = {"onnx": "model.onnx", "pt2": "model.pt2", "torchscript": "model.ts"}  # in order of preference
PROGRAMS = {
    ".pt2": "a PyTorch export (pt2), whose formulas are Python",
    ".ts": "TorchScript, which is a program",
}
_TRUSTED: set[str] = set()  # SHA-256 of the graphs that this process has written

Graph = Callable[[np.ndarray, np.ndarray], list[np.ndarray]]


def _graph_name(value: str) -> str:
    if Path(value).name != value or Path(value).suffix not in (".onnx", ".pt2", ".ts"):
        raise ValueError("the name of a .onnx, .pt2 or .ts file in the same folder")
    return value


GraphName = Annotated[str, AfterValidator(_graph_name)]


@dataclass(frozen=True, kw_only=True)
class About:
    """The contents of `model.json`."""

    format: Literal["onnx", "pt2", "torchscript"]
    file: GraphName  # the graph that was exported last
    model: Any  # its spec; `describe` checks this field and the next three
    classes: Any
    feature_spec: Any
    stream: Any
    post: dict[str, Any]
    inputs: list[str]
    outputs: list[str]
    decoded: bool
    largest_difference: Finite  # from the model
    weights: str | None = None  # hash of the model's weights
    files: list[GraphName] | None = None  # all graphs of these weights
    standardised: bool | None = None  # whether it takes standardised features; None: not known


_FIELDS = tuple(field.name for field in fields(About))


def read_about(folder: str | Path) -> About:
    """`model.json` of an exported model.

    Raises:
        TalError: missing or damaged, or a field of a wrong type.
    """
    path = Path(folder) / ABOUT
    content = read_json(path, remedy="Write the folder with `tal export`.")
    if isinstance(content, dict):
        content = {name: content[name] for name in _FIELDS if name in content}
    return validate(About, content, where=path, name=ABOUT, remedy=REMEDY)


def trust_file(path: str | Path) -> None:
    """Allow `load_graph` to load a graph that this process has written."""
    _TRUSTED.add(_sha256(path))


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Exported(Detector):
    """An exported graph in place of a network. It detects and proposes like the model that it was exported
    from.

    Args:
        folder: written by `export`; file: another graph of the same model in the folder (a quantized one).
        threads: of ONNX Runtime; trust: also load a graph that is a program.

    Raises:
        TalError: a missing or damaged file, or a graph that needs trust.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        file: str | None = None,
        threads: int | None = None,
        trust: bool = False,
    ):
        folder = Path(folder)
        about, where = read_about(folder), folder / ABOUT
        described = describe(
            spec=about.model,
            classes=about.classes,
            feature_spec=about.feature_spec,
            stream=about.stream,
            where=where,
        )
        model = build_described(described, where)
        if about.decoded != isinstance(model, PyramidDetector):
            raise TalError(
                f"decoded: {about.decoded} does not fit {described.spec.name}", where=where, remedy=REMEDY
            )
        super().__init__(model.config, model.input_dim, model.num_classes)
        self.model, self.decoded, self.spec = model, about.decoded, model.spec
        self.class_names = described.classes
        self.feature_spec, self.stream = described.feature_spec, described.stream
        self.standardised = about.standardised
        self.path = folder / file if file else _preferred(folder, about)
        self.graph = load_graph(self.path, threads, trust=trust)

    def name_classes(self, names: tuple[str, ...]) -> None:
        if tuple(names) != self.class_names:
            raise TalError(
                f"the graph was exported for classes {', '.join(self.class_names)}",
                remedy="Export the model again.",
            )

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        mask = torch.ones_like(features[:, 0], dtype=torch.bool) if mask is None else mask
        outputs = tuple(map(torch.from_numpy, self.graph(features.numpy(), mask.numpy())))
        if self.decoded:
            self._check_decoded(outputs, mask)
        return outputs

    def _check_decoded(self, outputs, mask):
        """Raise `TalError` unless a graph's outputs are segments (B, P, 1 or K, 2) and scores (B, P, K)."""
        count = len(self.model.points(mask.shape[1]).position)
        scores = (len(mask), count, self.num_classes)
        segments = [(*scores[:2], width, 2) for width in (1, self.num_classes)]
        shapes = [tuple(output.shape) for output in outputs]
        if len(shapes) != 2 or shapes[0] not in segments or shapes[1] != scores:
            raise TalError(
                f"the graph gives {shapes}, expected segments {segments[0]} and scores {scores}",
                where=self.path,
                remedy=REMEDY,
            )
        if not all(bool(torch.isfinite(output).all()) for output in outputs):
            raise TalError("the graph gives NaN or infinite values", where=self.path, remedy=REMEDY)

    def candidates(self, outputs: tuple[Tensor, ...], mask: Tensor) -> list[Candidates]:
        if not self.decoded:
            return self._by_model(self.model.candidates, outputs, mask)
        segments, scores = outputs
        by_class = segments.shape[2] > 1
        return self.model.best_points(
            scores,
            lambda at: segments[at.batch, at.row, at.label if by_class else torch.zeros_like(at.label)],
            self.model.points(mask.shape[1]),
            mask,
        )

    def class_agnostic(self, outputs: tuple[Tensor, ...], mask: Tensor) -> list[Candidates]:
        if not self.decoded:
            return self._by_model(self.model.class_agnostic, outputs, mask)
        return super().class_agnostic(outputs, mask)

    def _by_model(self, method, outputs, mask):
        """The model's post-processing of a graph's outputs, for graphs that do not include decoding."""
        try:
            candidates = method(outputs, mask)
            highest = max((int(some.labels.max()) for some in candidates if len(some.labels)), default=0)
            if highest >= self.num_classes:
                raise IndexError(f"class {highest + 1} of {self.num_classes}")
            return candidates
        except Exception as error:  # outputs of another model may raise any error
            raise TalError(
                f"its outputs are not those of {self.spec['name']} ({_first_line(error)})",
                where=self.path,
                remedy=REMEDY,
            ) from error


def _preferred(folder, about):
    """The graph to load: ONNX if there is one of the same weights, else the last exported one."""
    onnx = FORMATS["onnx"]
    if onnx in (about.files or []) and (folder / onnx).is_file() and _has_onnxruntime():
        return folder / onnx
    return folder / about.file


def _has_onnxruntime():
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return False
    return True


def load_graph(path: str | Path, threads: int | None = None, *, trust: bool = False) -> Graph:
    """An exported graph as a function of features (B, D, T) and mask (B, T). Inputs and outputs are arrays.

    Args:
        threads: of ONNX Runtime; trust: also load a graph that is a program (pt2, TorchScript).

    Raises:
        TalError: a missing or damaged file, or one that needs trust.
    """
    path = Path(path)
    if not path.is_file():
        raise TalError("file not found", where=path, remedy="Write it with `tal export`.")
    if path.suffix == ".onnx":
        return _load_onnx(path, threads)
    if not trust and _sha256(path) not in _TRUSTED:
        raise TalError(
            f"it is {PROGRAMS.get(path.suffix, 'a program')}: loading it can run any code, and write files",
            where=path,
            remedy="Export the model as ONNX, or add --trust (trust=True) if you trust its origin.",
        )
    try:
        if path.suffix == ".pt2":  # guards refuse valid sizes; parity is tested instead
            graph = torch.export.load(path).module(check_guards=False)
        else:
            graph = torch.jit.load(path, map_location="cpu")
    except Exception as error:
        raise _not_loaded(error, path) from None

    def run(features, mask):
        try:
            with torch.no_grad():
                outputs = graph(torch.from_numpy(features), torch.from_numpy(mask))
                return [output.numpy() for output in outputs]
        except Exception as error:
            raise TalError(
                f"cannot run {features.shape[2]} steps of {features.shape[1]} columns ({_first_line(error)})",
                where=path,
                remedy="Try another format.",
            ) from error

    return run


def _load_onnx(path, threads):
    try:
        import onnxruntime
    except ImportError:
        raise TalError(
            "running ONNX needs ONNX Runtime, which is not installed",
            where=path,
            remedy="Run `pip install onnxruntime`.",
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads or 0, 3
    # waiting threads do not spin
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common base class
        raise _not_loaded(error, path) from None
    names = sorted(entry.name for entry in session.get_inputs())
    if names != ["features", "mask"]:
        raise TalError(f"takes {', '.join(names)}, not features and mask", where=path, remedy=REMEDY)

    def run(features, mask):
        try:
            return session.run(None, {"features": features, "mask": mask})
        except Exception as error:
            raise TalError(
                f"ONNX Runtime cannot run {features.shape[2]} steps ({_first_line(error)})",
                where=path.name,
                remedy="Try another format, or the graph that is not quantized.",
            ) from error

    return run


def _not_loaded(error, path):
    return TalError(f"not a readable graph ({_first_line(error)})", where=path, remedy=REMEDY)


def _first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
