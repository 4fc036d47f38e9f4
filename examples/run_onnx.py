"""Detections of one recording from an exported pyramid detector, with numpy and onnxruntime alone.

tal export local_global --checkpoint model.pt --format onnx --out artefact
python examples/run_onnx.py artefact features.npy        # features (T, D), as the artefact's feature spec says
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

folder, features = Path(sys.argv[1]), np.load(sys.argv[2]).astype(np.float32)
about = json.loads((folder / "model.json").read_text())
session = onnxruntime.InferenceSession(folder / about["file"], providers=["CPUExecutionProvider"])
segments, scores = session.run(
    None, {"features": features.T[None], "mask": np.ones((1, len(features)), dtype=bool)}
)

post, spec = about["post"], about["feature_spec"]
point, label = np.nonzero(scores[0] > max(post["score_threshold"], 0.1))  # weaker ones are not worth printing
segments = np.broadcast_to(segments[0], (*scores[0].shape, 2))[point, label]
score = scores[0, point, label].copy()
print("start_s,end_s,label,score")
while len(score) and score.max() > 0.1:  # Gaussian soft-NMS, each class on its own
    best = score.argmax()
    start, end = np.clip(
        segments[best] * spec["stride_s"] + spec["window_s"] / 2,
        0,
        len(features) * spec["stride_s"] + spec["window_s"],
    )
    print(f"{start:.2f},{end:.2f},{about['classes'][label[best]]},{score[best]:.3f}")
    inside = np.minimum(segments[best, 1], segments[:, 1]) - np.maximum(segments[best, 0], segments[:, 0])
    overlap = inside.clip(0) / np.maximum(
        np.ptp(segments[best]) + np.ptp(segments, axis=1) - inside.clip(0), 1e-9
    )
    score *= np.where(label == label[best], np.exp(-(overlap**2) / post["nms_sigma"]), 1)
    score[best] = 0
