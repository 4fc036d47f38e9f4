"""Detections of one recording from an exported pyramid detector, with numpy and onnxruntime alone.

tal export local_global --checkpoint model.pt --format onnx --out artefact
python examples/run_onnx.py artefact features.npy   # features (T, D), see the artefact's feature spec

The detections are those of `tal detect`. What else a model's post-processing may do is refused.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

SHOWN = 0.1  # least score of a printed detection
# options of the post-processing: numbers, others, and those that have one value here
NUMBERS = (
    "score_threshold",
    "max_candidates",
    "min_segment_steps",
    "nms_sigma",
    "min_score",
    "max_detections",
    "voting_tiou",
)
CHOICES = {"multiclass", "voting_weight"}
FIXED = {"nms": "soft", "nms_power": 2, "nms_low": 0, "nms_high": 0}


def stop(problem):
    """Print one line that names the problem, and exit with code 2."""
    print(f"run_onnx: {problem}", file=sys.stderr)
    sys.exit(2)


def read_about(folder):
    """Read `model.json` of an artefact whose outputs are decoded."""
    path = folder / "model.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8-sig"))
        spec, post, config = about["feature_spec"], about["post"], dict(about["model"]["overrides"])
        numbers = (spec["stride_s"], spec["window_s"], *(post[name] for name in NUMBERS))
        usable = all(isinstance(number, int | float) for number in numbers) and min(numbers) >= 0
        usable = usable and set(post) >= CHOICES
        others = [name for name, value in FIXED.items() if post[name] != value]
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
    if "ranges" not in config:
        stop(f"{path}: does not tell the levels of the pyramid. Export the model again.")
    if others:
        stop(f"{path}: {others[0]} = {post[others[0]]} is not done here; use `tal detect`.")
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
    if not (np.isfinite(segments).all() and np.isfinite(scores).all()):
        stop(f"{path}: gives segments or scores that are NaN or infinite.")
    return np.broadcast_to(segments[0], (*scores[0].shape, 2)), scores[0]


def candidates(segments, scores, about, steps):
    """Segments (N, 2), scores (N,) and labels (N,) of the best points of each pyramid level."""
    post, config = about["post"], about["model"]["overrides"]
    steps = config.get("clip_steps") or steps  # some models cut a recording into clips, end to end
    sizes = [-(-steps // 2**level) for level in range(len(config["ranges"]))]
    kept, first = [], 0
    for size in sizes * -(-len(scores) // sum(sizes)):
        level = scores[first : first + size].ravel()
        best = np.argsort(-level, kind="stable")[: post["max_candidates"]]
        kept.append(first * scores.shape[1] + best[level[best] > post["score_threshold"]])
        first += size
    point, label = np.divmod(np.concatenate(kept), scores.shape[1])
    segments, scores = segments[point, label], scores[point, label]
    good = (segments[:, 1] - segments[:, 0] > post["min_segment_steps"]) & (scores > post["min_score"])
    return segments[good], scores[good], label[good]


def detections(segments, scores, labels, post):
    """Soft-NMS and voting. Yields segment, score and label of each detection, best first."""
    pools = labels if post["multiclass"] else np.zeros_like(labels)  # a pool's candidates suppress each other
    left = scores.copy()
    for _ in range(post["max_detections"]):
        if not left.size or left.max() <= post["min_score"]:
            return
        best = left.argmax()
        inside = np.minimum(segments[best, 1], segments[:, 1]) - np.maximum(segments[best, 0], segments[:, 0])
        inside = inside.clip(0)
        overlap = inside / np.maximum(np.ptp(segments[best]) + np.ptp(segments, axis=1) - inside, 1e-9)
        pool, segment = pools == pools[best], segments[best]
        if post["voting_tiou"] > 0:  # the mean of all candidates nearby, also of the suppressed ones
            weight = scores * (pool & (overlap >= post["voting_tiou"]))
            weight = weight * overlap if post["voting_weight"] == "score_tiou" else weight
            segment = weight @ segments / weight.sum()
        yield segment, left[best], labels[best]
        left *= np.where(pool, np.exp(-(overlap**2) / post["nms_sigma"]), 1)
        left[best] = -1


def main():
    """Print the detections as CSV, best first."""
    if len(sys.argv) != 3:
        stop("give the folder of an exported model and a .npy file of features (T, D).")
    about, names = read_about(Path(sys.argv[1]))
    spec = about["feature_spec"]
    features = read_features(sys.argv[2], spec, about["stream"])
    features = standardised(Path(sys.argv[1]) / "standardise.json", features, about.get("standardised"))
    outputs = run_graph(Path(sys.argv[1]) / "model.onnx", features, len(names))

    duration = (len(features) - 1) * spec["stride_s"] + spec["window_s"]
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["start_s", "end_s", "label", "score"])
    for segment, score, label in detections(*candidates(*outputs, about, len(features)), about["post"]):
        start, end = np.clip(segment * spec["stride_s"] + spec["window_s"] / 2, 0, duration)
        if score > SHOWN and start < end:
            table.writerow([f"{start:.2f}", f"{end:.2f}", names[label], f"{score:.3f}"])


if __name__ == "__main__":
    main()
