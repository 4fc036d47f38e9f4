"""External class scores of whole recordings, as the field publishes them, and their fusion with class-agnostic proposals."""

import io
import json
import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pandas as pd

from tal_lib.data.tables import DETECTION_COLUMNS, check_proposals
from tal_lib.errors import TalError

SHAPE = (
    "Expected {'results': {recording: [score a class]}, 'class': [names]}, {'results': {recording: [{'label', 'score'}]}}, "
    "or {recording: scores a class}, as JSON or as a pickle of plain values and numpy arrays."
)


def read_class_scores(path: str | Path, classes) -> pd.DataFrame:
    """Scores of recordings (rows) and classes (columns, in the order given) from a JSON or pickle file.

    Rows of scores a frame are averaged; ActivityNet's `v_` before recording ids is taken off. A pickle may hold plain values and numpy
    arrays only: anything else in it is refused, not run.

    Raises:
        TalError: missing, unreadable or of another shape; a class without scores; scores that are not finite.
    """
    path, classes = Path(path), list(classes)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise TalError(
            "class scores not found", where=path, remedy="Give the path of a JSON or pickle file."
        ) from None
    content = _unpickle(raw, path) if path.suffix in (".pkl", ".pickle") else _parse(raw, path)
    names, content = (
        (content.get("class", classes), content.get("results", content))
        if isinstance(content, dict)
        else (None, None)
    )
    if not isinstance(content, dict) or not content:
        raise TalError("class scores of another shape", where=path, remedy=SHAPE)
    missing = [name for name in classes if name not in names]
    if missing:
        raise TalError(
            f"no scores for class {missing[0]!r}",
            where=path,
            remedy=f"The file has {len(names)} classes; rename to match.",
        )
    rows = {}
    for recording, scores in content.items():
        try:
            one = _row(scores, list(names))
        except (KeyError, TypeError, ValueError) as error:
            raise TalError(
                f"class scores of another shape ({type(error).__name__}: {error})",
                where=f"{path}, recording {recording}",
                remedy=SHAPE,
            ) from None
        if not np.isfinite(one).all():
            raise TalError(
                "class scores that are not finite",
                where=f"{path}, recording {recording}",
                remedy="Write finite scores.",
            )
        name = str(recording)
        rows[name.removeprefix("v_") if len(name) == 13 else name] = one
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(names))[classes]


def fuse(proposals: pd.DataFrame, class_scores: pd.DataFrame, top: int = 2) -> pd.DataFrame:
    """Detections: every proposal once for each of its recording's `top` classes, score × class score; best first a recording.

    Raises:
        TalError: a recording with proposals but no class scores.
    """
    proposals = check_proposals(proposals)
    unknown = proposals.recording[~proposals.recording.isin(class_scores.index)]
    if len(unknown):
        raise TalError(
            f"no class scores for recording {unknown.iloc[0]}",
            where="fusion",
            remedy="Score every recording that has proposals, or leave its proposals out.",
        )
    best = (
        class_scores.rename_axis("recording")
        .stack()
        .rename("class_score")
        .rename_axis(["recording", "label"])
        .reset_index()
    )
    best = (
        best.sort_values("class_score", ascending=False, kind="stable")
        .groupby("recording", sort=False)
        .head(top)
    )
    fused = proposals.merge(best, on="recording")
    fused["score"] *= fused.class_score
    return fused.sort_values(["recording", "score"], ascending=[True, False], kind="stable")[
        DETECTION_COLUMNS
    ].reset_index(drop=True)


def _row(scores, names):
    if isinstance(scores, dict):
        return np.array([float(scores[name]) for name in names])
    if len(scores) and isinstance(scores[0], dict):
        found = {item["label"]: float(item["score"]) for item in scores}
        return np.array([found.get(name, 0.0) for name in names])
    values = np.asarray(scores, dtype=float)
    values = values.mean(0) if values.ndim == 2 else values
    if values.shape != (len(names),):
        raise ValueError(f"{values.shape} scores for {len(names)} classes")
    return values


def _parse(raw, path):
    try:
        return json.loads(raw.decode("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TalError(
            f"not valid JSON ({error})", where=path, remedy="The file may be truncated; write it again."
        ) from None


class _Dtype:
    """Stands in for numpy's: that one, given a state that was tampered with, crashes the process."""

    def __init__(self, kind, *_):
        self.kind, self.order = kind, "="

    def __setstate__(self, state):
        self.order = state[1]

    def true(self) -> np.dtype:
        dtype = np.dtype(f"{'=' if self.order == '|' else self.order}{self.kind}")
        if dtype.kind not in "fiubUS":
            raise pickle.UnpicklingError(f"it holds {dtype} values")
        return dtype


class _Array:
    """Stands in for an array that is being put together."""

    def __init__(self, *_):
        self.values = np.empty(0)

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        self.values = _frombuffer(data, dtype, shape, "F" if fortran else "C")


def _frombuffer(data, dtype, shape, order):
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, dtype.true()).reshape(shape, order=order)


def _encode(text, encoding):
    return text.encode({"latin1": "latin1"}[encoding])


class _PlainUnpickler(pickle.Unpickler):
    """Plain values and numpy arrays of numbers and text; nothing that could run code, or that numpy itself would unpickle."""

    ALLOWED = {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _encode,
        ("collections", "OrderedDict"): OrderedDict,
    } | {
        (f"numpy.{core}.{module}", name): meaning
        for core in ("core", "_core")
        for module, name, meaning in (
            ("multiarray", "_reconstruct", _Array),
            ("numeric", "_frombuffer", _frombuffer),
            ("multiarray", "scalar", lambda dtype, data: _frombuffer(data, dtype, (), "C")),
        )
    }

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it wants {module}.{name}")
        return self.ALLOWED[module, name]


def _plain(value):
    """Arrays in the place of their stand-ins."""
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, dict):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _unpickle(raw, path):
    try:
        for operation, argument, _ in pickletools.genops(raw):
            if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > len(
                raw
            ):  # the unpickler would make room for as many
                raise pickle.UnpicklingError(f"it numbers {argument:,} objects in {len(raw):,} bytes")
        return _plain(_PlainUnpickler(io.BytesIO(raw), encoding="latin1").load())
    except Exception as error:  # whatever a broken stream raises
        raise TalError(f"not a pickle of plain values ({error})", where=path, remedy=SHAPE) from None
