"""Generated recordings: two streams, classes made of a verb and an object, durations and gaps as in THUMOS14.

`flow` shows the verb as a pattern over the action's course; `rgb` shows the object. Both streams also show
verbs without object and objects without verb. So only their coincidence is an action. Slow and fast noise is
added. Durations and gaps are log-normal with THUMOS14's medians (3.0 and 3.0 s) and spreads (0.84 and 1.47 in
log seconds).

`chance` and `oracle` are lower and upper bounds for a detector; notebook 01_data prints both.
"""

import zlib
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tal_lib.data.benchmark import Benchmark, FeatureSpec
from tal_lib.files import digest

VERBS = ("lift", "push", "spin", "throw", "wave")
OBJECTS = ("ball", "bottle", "box", "rope")
CLASSES = tuple(f"{verb} {thing}" for verb in VERBS for thing in OBJECTS)
TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Size and difficulty."""

    seed: int = 0
    train_recordings: int = 40
    test_recordings: int = 20
    stride_s: float = 0.4
    dim: int = 48  # columns of each stream
    median_duration_s: float = 120.0
    signal: float = 1.6  # strength of an action's pattern; noise has standard deviation 1
    slow_noise: float = 1.0  # standard deviation of the drifting background
    phases: int = 4  # patterns that a verb passes through
    splits: tuple[str, ...] = field(default=("train", "test"))


def generator(config: SyntheticConfig, *key) -> np.random.Generator:
    """An independent stream of random numbers for each key."""
    return np.random.default_rng([config.seed, *(zlib.crc32(str(part).encode()) for part in key)])


def patterns(config: SyntheticConfig) -> tuple[np.ndarray, np.ndarray]:
    """Unit patterns of the verbs (V, phases, dim) and of the objects (O, dim)."""
    rng = generator(config, "patterns")
    # verbs share phases; they differ mainly in the order of the phases
    basis = np.linalg.qr(rng.standard_normal((config.dim, config.phases + len(VERBS))))[0].T
    shared, distinct = basis[: config.phases], basis[config.phases :]
    verbs = np.stack([shared[rng.permutation(config.phases)] + 0.5 * distinct[v] for v in range(len(VERBS))])
    objects = np.linalg.qr(rng.standard_normal((config.dim, len(OBJECTS))))[0].T
    return verbs / np.linalg.norm(verbs, axis=-1, keepdims=True), objects


def _timeline(config, rng):
    """Duration and events of one recording: (start, end, verb or −1, object or −1)."""
    duration = float(np.clip(config.median_duration_s * np.exp(0.4 * rng.standard_normal()), 40, 300))
    favourite = rng.integers(len(CLASSES), size=3)  # a recording is about a few classes
    events, at = [], float(rng.exponential(3.0))
    while True:
        length = float(np.clip(np.exp(1.11 + 0.84 * rng.standard_normal()), 4 * config.stride_s, 25))
        if at + length > duration:
            break
        verb, thing = divmod(int(rng.choice(favourite)), len(OBJECTS))
        kind = rng.random()
        if kind < 0.15:
            verb = -1  # an object without an action
        elif kind < 0.30:
            thing = -1  # a verb without object
        events.append((at, at + length, verb, thing))
        at += length + float(np.clip(np.exp(1.11 + 1.47 * rng.standard_normal()), 0.4, 40))
    return duration, events


def _course(position, phases):
    """Weights (T, phases) of the patterns at positions in [0, 1]. Each pattern blends into the next."""
    at = np.clip(position, 0, 1)[:, None] * (phases - 1)
    return np.clip(1 - np.abs(at - np.arange(phases)), 0, None)


def _features(config, recording, duration, events):
    rng = generator(config, "features", recording)
    steps = int((duration - 2 * config.stride_s) / config.stride_s) + 1
    verbs, objects = patterns(config)
    drift = rng.standard_normal((steps, 2 * config.dim))
    for t in range(1, steps):  # slow background, unit variance
        drift[t] = 0.95 * drift[t - 1] + np.sqrt(1 - 0.95**2) * drift[t]
    scene = rng.standard_normal(2 * config.dim)
    mix = rng.standard_normal((2 * config.dim, 3)) / np.sqrt(3)
    x = config.slow_noise * (drift[:, :3] @ mix.T + 0.5 * scene) + rng.standard_normal(
        (steps, 2 * config.dim)
    )
    rgb, flow = x[:, : config.dim], x[:, config.dim :]
    time = np.arange(steps) * config.stride_s + config.stride_s  # centres of the windows
    scale = config.signal * np.sqrt(config.dim) / 2
    for start, end, verb, thing in events:
        inside = np.clip((time - start) / (0.5 * config.stride_s) + 0.5, 0, 1) * np.clip(
            (end - time) / (0.5 * config.stride_s) + 0.5, 0, 1
        )
        gain = scale * rng.uniform(0.7, 1.3)
        if verb >= 0:
            flow += (
                gain
                * inside[:, None]
                * (_course((time - start) / (end - start), config.phases) @ verbs[verb])
            )
        if thing >= 0:
            rgb += gain * inside[:, None] * objects[thing]
    return x.astype(np.float32)


def load(config: SyntheticConfig | None = None) -> Benchmark:
    """Generate the benchmark. A recording is generated when its features are first read."""
    config = config or SyntheticConfig()
    rows, segments, timelines = [], [], {}
    for split, count in zip(config.splits, (config.train_recordings, config.test_recordings)):
        for number in range(count):
            recording = f"{split}_{number:03d}"
            rng = generator(config, "timeline", recording)
            duration, events = _timeline(config, rng)
            while not any(verb >= 0 and thing >= 0 for *_, verb, thing in events):
                duration, events = _timeline(config, rng)
            timelines[recording] = duration, events
            rows.append({"recording": recording, "split": split, "duration": duration})
            segments += [
                {
                    "recording": recording,
                    "start": start,
                    "end": end,
                    "label": f"{VERBS[verb]} {OBJECTS[thing]}",
                }
                for start, end, verb, thing in events
                if verb >= 0 and thing >= 0
            ]
    return Benchmark(
        name="synthetic",
        classes=CLASSES,
        tious=TIOUS,
        feature_spec=FeatureSpec(
            stride_s=config.stride_s,
            window_s=2 * config.stride_s,
            streams={"rgb": config.dim, "flow": config.dim},
        ),
        recordings=pd.DataFrame(rows),
        annotations=pd.DataFrame(segments),
        load_features=lambda recording: _features(config, recording, *timelines[recording]),
        source_hash=digest("synthetic 1", asdict(config)),
    )


def chance(
    benchmark: Benchmark, split: str = "test", per_recording: int = 100, seed: int = 0
) -> pd.DataFrame:
    """Detections drawn from the durations and class frequencies alone, without the features."""
    rng = np.random.default_rng(seed)
    known = benchmark.annotations("train")
    lengths, labels = (known.end - known.start).to_numpy(), known.label.to_numpy()
    tables = []
    for recording in benchmark.recordings(split):
        duration = benchmark.duration(recording)
        length = np.minimum(rng.choice(lengths, per_recording), duration)
        start = rng.uniform(0, duration - length)
        tables.append(
            pd.DataFrame(
                {
                    "recording": recording,
                    "start": start,
                    "end": start + length,
                    "label": rng.choice(labels, per_recording),
                    "score": rng.random(per_recording),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def oracle(benchmark: Benchmark, split: str = "test", config: SyntheticConfig | None = None) -> pd.DataFrame:
    """Detections with oracle boundaries: a matched filter with the generator's patterns names only the class.

    The mAP is the same at every tIoU. It is what perfect localization with a matched filter would reach.
    """
    config = config or SyntheticConfig()
    verbs, objects = patterns(config)
    rows = []
    segment: Any
    for segment in benchmark.annotations(split).itertuples(index=False):
        x = benchmark.features(segment.recording)
        time = np.arange(len(x)) * config.stride_s + config.stride_s
        inside = (time >= segment.start) & (time <= segment.end)
        around = (time >= segment.start - 4) & (time <= segment.end + 4) & ~inside
        x = x - (x[around].mean(0) if around.any() else 0)
        course = _course((time[inside] - segment.start) / (segment.end - segment.start), config.phases)
        verb_score = np.einsum("td,tp,vpd->v", x[inside, config.dim :], course, verbs) / max(1, inside.sum())
        object_score = (x[inside, : config.dim] @ objects.T).sum(0) / max(1, inside.sum())
        score = verb_score[:, None] + object_score[None]
        best = int(score.argmax())
        rows.append((segment.recording, segment.start, segment.end, CLASSES[best], float(score.max())))
    return pd.DataFrame(rows, columns=["recording", "start", "end", "label", "score"])
