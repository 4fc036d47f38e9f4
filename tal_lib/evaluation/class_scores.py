"""Published class scores of whole recordings, and their fusion with proposals."""

import io
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Mapping
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd

from tal_lib.data.tables import DETECTION_COLUMNS, check_proposals
from tal_lib.errors import TalError
from tal_lib.evaluation.detections import Number
from tal_lib.evaluation.matching import closest_label, match_labels
from tal_lib.reading import read_bytes, read_json
from tal_lib.validation import validate

WHAT = "class scores"
MOST_VALUES = 50_000_000  # of a pickle: 5,000 videos with 10,000 scores each
SHAPE = (
    "Expected {'results': {recording: [score a class]}, 'class': [names]}, "
    "{'results': {recording: [{'label', 'score'}]}}, "
    "or {recording: scores a class}, as JSON or as a pickle of plain values and numpy arrays."
)


def read_class_scores(
    path: str | Path, classes, *, label_ids: Mapping[int, str] | None = None
) -> pd.DataFrame:
    """Scores of recordings (rows, ids as in the file) and classes (columns, in the given order).

    Reads JSON or pickle files. Scores per frame are averaged. A pickle may hold plain values and numpy arrays
    only: anything else in it is refused, not executed.

    Args:
        classes: all classes, in the order of score lists without names.
        label_ids: index → class, for files that write indices.

    Raises:
        TalError: missing, unreadable or of another shape; a class without scores; scores that are not finite.
    """
    path, classes = Path(path), list(classes)
    remedy = "Give the path of a JSON or pickle file."
    if path.suffix in (".pkl", ".pickle"):
        content = _unpickle(read_bytes(path, what=WHAT, remedy=remedy), path)
    else:
        content = read_json(path, what=WHAT, remedy=remedy)
    names, content = (
        (content.get("class", classes), content.get("results", content))
        if isinstance(content, dict)
        else (None, None)
    )
    if not isinstance(content, dict) or not content or not isinstance(names, list | np.ndarray):
        raise TalError("unexpected structure of class scores", where=path, remedy=SHAPE)
    label_ids = label_ids or {}
    names = [str(name) for name in names]
    matches = _match_classes(names, classes, label_ids, path)
    names = [matches.get(name) for name in names]
    labels: set[str] = set()
    rows = {
        str(recording): _row(scores, names, classes, label_ids, labels, f"{path}, recording {recording}")
        for recording, scores in content.items()
    }
    if labels - set(match_labels(labels, classes, label_ids)):
        _match_classes(labels, classes, label_ids, path)
    return pd.DataFrame.from_dict(rows, orient="index", columns=classes)


def _match_classes(names, classes, label_ids, where):
    """Name in the file → class. `TalError` if a class has no name in the file."""
    matches = match_labels(names, classes, label_ids)
    missing = [name for name in classes if name not in matches.values()]
    if missing:
        close = closest_label(missing[0], [name for name in names if name not in matches])
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise TalError(
            f"no scores for class {missing[0]!r}{more}",
            where=where,
            remedy=f"The file has {len(names)} classes"
            + (f", such as {close!r}; rename to match." if close else "; rename to match."),
        )
    return matches


def fuse(
    proposals: pd.DataFrame, class_scores: pd.DataFrame, top: int = 2, *, root: bool = False
) -> pd.DataFrame:
    """Detections: every proposal once for each of its recording's `top` classes, with score × class score.

    The best detections come first in each recording.

    Args:
        root: the square root of that product, as in the code of ActionFormer and TriDet. The order of the
            detections, and so the mAP, stays. Scores must not be negative.

    Raises:
        TalError: a recording with proposals but no class scores; with `root`, a negative score.
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
        .rename("class_score")  # pyright: ignore[reportCallIssue, reportArgumentType]
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
    if root:
        negative = fused.recording[fused.score < 0]
        if len(negative):
            raise TalError(
                f"recording {negative.iloc[0]} has a negative score, which has no square root",
                where="fusion",
                remedy="Give probabilities, or leave out root.",
            )
        fused["score"] **= 0.5
    return fused.sort_values(  # pyright: ignore[reportReturnType]
        ["recording", "score"], ascending=[True, False], kind="stable"
    )[DETECTION_COLUMNS].reset_index(drop=True)


def _row(scores, names, classes, label_ids, labels, where):
    """Scores of one recording, in the order of the classes.

    `labels` collects the labels of a list of {'label', 'score'}, which may hold only a recording's best
    classes.
    """
    by_label = scores if isinstance(scores, dict) else None
    if isinstance(scores, list) and len(scores) and isinstance(scores[0], dict):
        try:
            by_label = {str(item["label"]): item["score"] for item in scores}
        except (KeyError, TypeError) as error:
            raise _other_shape(f"{type(error).__name__}: {error}", where) from None
        labels.update(by_label)
    if by_label is not None:
        by_label = {str(label): _as_number(score) for label, score in by_label.items()}
        by_label = validate(dict[str, Number], by_label, where=where, name="scores", remedy=SHAPE)
        find = _match_classes if isinstance(scores, dict) else lambda *arguments: match_labels(*arguments[:3])
        matches = find(by_label, classes, label_ids, where)
        values = {matches[label]: score for label, score in by_label.items() if label in matches}
    else:
        try:
            array = np.asarray(scores, dtype=float)
        except (TypeError, ValueError, OverflowError) as error:
            raise _other_shape(f"{type(error).__name__}: {error}", where) from None
        if array.ndim == 2 and len(array):
            array = array.mean(0)
        if array.shape != (len(names),):
            raise _other_shape(f"{array.shape} scores for {len(names)} classes", where)
        if not np.isfinite(array).all():
            raise TalError("class scores that are not finite", where=where, remedy="Write finite scores.")
        values = dict(zip(names, array))
    return np.array([values.get(name, 0.0) for name in classes], dtype=float)


def _as_number(score):
    """A numpy scalar as a Python number."""
    return score.item() if isinstance(score, np.generic | np.ndarray) and np.size(score) == 1 else score


def _other_shape(problem, where):
    return TalError(f"unexpected structure of class scores ({problem})", where=where, remedy=SHAPE)


class _Dtype:
    """Replaces numpy's dtype, which crashes the process if a pickle sets a manipulated state."""

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
    """Placeholder of an array while it is unpickled."""

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
    """Plain values and numpy arrays of numbers and text; nothing that could run code."""

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
            raise pickle.UnpicklingError(f"it loads {module}.{name}")
        return self.ALLOWED[module, name]


def _plain(value):
    """The value with its placeholders replaced by arrays.

    A list that holds one list many times, which does so again, would be a small file and endless values.
    """
    values = count(1)

    def plain(value):
        if next(values) > MOST_VALUES:
            raise pickle.UnpicklingError(f"it holds more than {MOST_VALUES:,} values")
        if isinstance(value, _Array):
            return value.values
        if isinstance(value, dict):
            return {plain(key): plain(inner) for key, inner in value.items()}
        return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value

    return plain(value)


def _unpickle(raw, path):
    try:
        for operation, argument, _ in pickletools.genops(raw):
            if (
                operation.name in ("PUT", "BINPUT", "LONG_BINPUT")  # it would allocate that many entries
                and argument > len(raw)  # pyright: ignore[reportOptionalOperand]
            ):
                raise pickle.UnpicklingError(f"it numbers {argument:,} objects in {len(raw):,} bytes")
        return _plain(_PlainUnpickler(io.BytesIO(raw), encoding="latin1").load())
    except Exception as error:  # a broken stream may raise anything
        raise TalError(f"not a pickle of plain values ({error})", where=path, remedy=SHAPE) from None
