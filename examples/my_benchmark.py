"""counting: an example of a benchmark in a file outside the library. See docs/adding-a-dataset.md.

Its recordings are synthetic. A real benchmark reads its annotation files and its features.
"""

import numpy as np
import pandas as pd

from tal_lib.data import Benchmark, FeatureSpec, register_benchmark

STEPS, STRIDE_S, DIM = 240, 0.5, 16
CLASSES = ("low", "high")


def load(root) -> Benchmark:
    """Load the benchmark. root: the data folder, which this benchmark does not need."""
    rng = np.random.default_rng(0)
    recordings, annotations, features = [], [], {}
    for number in range(30):
        name = f"count{number:02d}"
        values = rng.normal(size=(STEPS, DIM))
        for place in range(4):
            first = 20 + 55 * place + int(rng.integers(0, 20))  # steps
            length = int(rng.integers(8, 25))
            label = int(rng.integers(0, 2))
            values[first : first + length, 8 * label : 8 * label + 8] += 1.5
            start, end = first * STRIDE_S, (first + length) * STRIDE_S  # seconds
            annotations.append((name, start, end, CLASSES[label]))
        recordings.append((name, "train" if number < 20 else "test", STEPS * STRIDE_S))
        features[name] = values.astype(np.float32)  # (T, D)
    return Benchmark(
        name="counting",
        classes=CLASSES,
        tious=(0.3, 0.4, 0.5, 0.6, 0.7),
        feature_spec=FeatureSpec(stride_s=STRIDE_S, window_s=STRIDE_S, streams={"values": DIM}),
        recordings=pd.DataFrame(recordings, columns=["recording", "split", "duration"]),
        annotations=pd.DataFrame(annotations, columns=["recording", "start", "end", "label"]),
        load_features=features.__getitem__,
        source_hash="counting, version 1",  # change it when the data change
    )


register_benchmark("counting", load, about="made up: 30 recordings, 2 classes")
