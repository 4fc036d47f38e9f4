"""Detections of one recording from an exported pyramid detector, with numpy and onnxruntime alone.

tal export local_global --checkpoint model.pt --format onnx --out artefact
python examples/run_onnx.py artefact features.npy   # features (T, D), see the artefact's feature spec
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

SHOWN = 0.1  # least score of a printed detection


def stop(problem):
    """Print one line that names the problem, and exit with code 2."""
    print(f"run_onnx: {problem}", file=sys.stderr)
    sys.exit(2)


def read_about(folder):
    """Read `model.json` of an artefact whose outputs are decoded."""
    path = folder / "model.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8-sig"))
        spec, post = about["feature_spec"], about["post"]
        numbers = (spec["stride_s"], spec["window_s"], post["score_threshold"], post["nms_sigma"])
        usable = all(isinstance(number, int | float) for number in numbers) and min(numbers) >= 0
        widths = [int(width) for width in spec["streams"].values()]
        stream, names, files = (
            about["stream"],
            list(about["classes"]),
            [about["file"], *about.get("files", [])],
        )
        decoded = about["decoded"]
    except FileNotFoundError:
        stop(f"{path}: file not found. Write the folder with `tal export`.")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        stop(f"{path}: not the description of an exported model ({type(error).__name__}: {error}).")
    if not usable or not widths or min(widths) < 1 or not (stream is None or stream in spec["streams"]):
        stop(f"{path}: a feature_spec, stream or post that cannot be. Export the model again.")
    if decoded is not True:
        stop(f"{path}: this model leaves decoding to tal_lib; use `tal detect {folder}`.")
    if "model.onnx" not in files:
        stop(f"{path}: the folder has {files[0]}. Export the model with --format onnx.")
    return about, names


def read_features(path, spec, stream):
    """Features (T, D), float32, of the streams that the model takes."""
    try:
        features = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        stop(f"{path}: not a readable .npy file ({str(error).splitlines()[0]}).")
    width = sum(spec["streams"].values())
    expected = width if stream is None else spec["streams"][stream]
    if not isinstance(features, np.ndarray) or features.dtype.kind not in "fiu":
        stop(f"{path}: holds {getattr(features, 'dtype', 'several arrays')}, not one array of numbers.")
    if features.ndim != 2 or features.shape[1] not in (width, expected) or not len(features):
        transposed = features.ndim == 2 and features.shape[0] == expected
        hint = " It looks transposed: save features.T." if transposed else ""
        stop(f"{path}: features of shape {features.shape}, the model takes (T, {expected}).{hint}")
    if features.shape[1] != expected:
        first = sum(list(spec["streams"].values())[: list(spec["streams"]).index(stream)])
        features = features[:, first : first + expected]
    with np.errstate(over="ignore"):
        features = features.astype(np.float32)
    if not np.isfinite(features).all():
        step = int(np.argmax(~np.isfinite(features).all(axis=1)))
        stop(f"{path}: features are NaN or infinite, first at step {step}.")
    return features


def standardised(path, features, stated=None):
    """Features by the mean and standard deviation that `tal export` put beside the graph, if it did.

    `stated` is what model.json says: True, False, or None for the export of an earlier version.
    """
    if not path.is_file():
        if stated:
            stop(f"{path}: file not found, but the model takes standardised features. Copy the whole folder.")
        if stated is None:
            print(
                f"{path.parent}: does not say whether the model takes standardised features. Features are "
                "used as they are. Export the model again.",
                file=sys.stderr,
            )
        return features
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
        mean, std = (np.asarray(values[name], values["dtype"]) for name in ("mean", "std"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        stop(f"{path}: not the statistics of features ({type(error).__name__}: {error}).")
    if mean.shape != features.shape[1:] or std.shape != mean.shape or not (std > 0).all():
        stop(f"{path}: statistics of {mean.shape[0] if mean.ndim else 0} columns, or a deviation of zero.")
    return ((features - mean) / std).astype(np.float32)


def run_graph(path, features, count):
    """Segments (P, K, 2) in steps and scores (P, K) of a recording; K is the number of classes."""
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        inputs = {"features": features.T[None], "mask": np.ones((1, len(features)), dtype=bool)}
        segments, scores = session.run(None, inputs)
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        stop(f"{path}: cannot be run ({(str(error).strip() or type(error).__name__).splitlines()[0][:200]}).")
    if scores.ndim != 3 or scores.shape[2] != count or segments.shape[:2] != scores.shape[:2]:
        stop(f"{path}: gives segments {segments.shape} and scores {scores.shape} for {count} classes.")
    if not np.isfinite(scores).all():
        stop(f"{path}: gives scores that are NaN or infinite.")
    return np.broadcast_to(segments[0], (*scores[0].shape, 2)), scores[0]


def main():
    """Print the detections as CSV, best first."""
    if len(sys.argv) != 3:
        stop("give the folder of an exported model and a .npy file of features (T, D).")
    about, names = read_about(Path(sys.argv[1]))
    post, spec = about["post"], about["feature_spec"]
    features = read_features(sys.argv[2], spec, about["stream"])
    features = standardised(Path(sys.argv[1]) / "standardise.json", features, about.get("standardised"))
    segments, scores = run_graph(Path(sys.argv[1]) / "model.onnx", features, len(names))

    point, label = np.nonzero(scores > max(post["score_threshold"], SHOWN))
    segments, score = segments[point, label], scores[point, label].copy()
    duration = (len(features) - 1) * spec["stride_s"] + spec["window_s"]
    print("start_s,end_s,label,score")
    while len(score) and score.max() > SHOWN:  # Gaussian soft-NMS, separately for each class
        best = score.argmax()
        start, end = np.clip(segments[best] * spec["stride_s"] + spec["window_s"] / 2, 0, duration)
        print(f"{start:.2f},{end:.2f},{names[label[best]]},{score[best]:.3f}")
        inside = np.minimum(segments[best, 1], segments[:, 1]) - np.maximum(segments[best, 0], segments[:, 0])
        inside = inside.clip(0)
        overlap = inside / np.maximum(np.ptp(segments[best]) + np.ptp(segments, axis=1) - inside, 1e-9)
        score *= np.where(label == label[best], np.exp(-(overlap**2) / post["nms_sigma"]), 1)
        score[best] = 0


if __name__ == "__main__":
    main()
