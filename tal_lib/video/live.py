"""Live detection: frames in, the current action out.

It combines the feature extractor, a rolling history of feature steps, and the model.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from tal_lib.data.batches import collate, unannotated
from tal_lib.data.benchmark import FeatureSpec
from tal_lib.errors import TalError
from tal_lib.models import Detector
from tal_lib.process.parts import Timed, untimed
from tal_lib.video.backbones import CHUNK, WINDOW, Backbone, backbone_for
from tal_lib.video.extract import Sampling, Steps


@dataclass(frozen=True)
class Answer:
    """The action at one time of the stream."""

    time_s: float  # the time in the stream that the answer is about
    label: str | None  # the action; None if no score reaches the threshold
    score: float
    scores: dict[str, float]  # class → score of its best detection that covers this time
    latency_s: float  # from the call with the last frame to the answer


def sampling_of(spec: FeatureSpec, window: int = WINDOW) -> Sampling:
    """The frame sampling with the stride and window of a feature spec, at `window` frames per step.

    Raises:
        TalError: the steps would not begin at frames, so they would have another stride.
    """
    if not _fits(spec, window):
        fitting = [count for count in range(1, 4 * window + 1) if _fits(spec, count)]
        near = min(fitting, key=lambda count: abs(count - window), default=None)
        raise TalError(
            f"{window} frames per step of {spec.window_s:g} s give no step every {spec.stride_s:g} s",
            remedy=f"Give another number, such as {near}." if near else "Give another number of frames.",
        )
    fps = window / spec.window_s
    return Sampling(fps=fps, window=window, stride=round(spec.stride_s * fps))


def _fits(spec, window):
    """Whether the steps begin at frames, if each has `window` frames."""
    stride = spec.stride_s * window / spec.window_s
    return round(stride) >= 1 and abs(stride - round(stride)) < 1e-3 * stride


class LiveDetector:
    """A trained detector on a stream of frames.

    Args:
        model: trained or exported.
        classes, spec: those of the training.
        history: steps that the model sees.
        delay_s: the answer is about the time `delay_s` seconds ago, so that the model also sees what follows.
        threshold: of the score.
        timed: context manager that times `features` and `localization`.
        prepared: features (T, D) → as the model takes them (`Ready.prepared`); None: as they are.
    """

    def __init__(
        self,
        model: Detector,
        classes: tuple[str, ...],
        spec: FeatureSpec,
        *,
        extractor: Backbone | None = None,
        window: int = WINDOW,
        history: int = 96,
        delay_s: float = 1.5,
        threshold: float = 0.25,
        timed: Timed = untimed,
        prepared: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        if history < 1 or delay_s < 0:
            raise TalError(
                f"history={history}, delay_s={delay_s}",
                remedy="Give a history of at least 1 step and a delay of at least 0 s.",
            )
        if delay_s >= history * spec.stride_s:  # what it is about would be forgotten
            raise TalError(
                f"a delay of {delay_s:g} s, and the model sees {history * spec.stride_s:g} s",
                remedy="Give a shorter delay.",
            )
        self.model, self.classes, self.spec = model.eval(), tuple(classes), spec
        self.extractor = extractor or backbone_for(spec)
        columns = sum(self.extractor.streams.values())
        if columns != spec.dim:
            raise TalError(
                f"{self.extractor.name} gives {columns} columns, the model takes {spec.dim}",
                remedy="Name the backbone that the model was trained on.",
            )
        self.sampling = sampling_of(spec, window)
        self.steps, self.recent = Steps(self.extractor, self.sampling), deque(maxlen=history)
        self._waiting: list[np.ndarray] = []  # prepared pictures that are not described yet
        self.delay_s, self.threshold, self.count, self.frames = delay_s, threshold, 0, 0
        self.lost = 0  # frames that the caller had to leave out: the times of answers count them
        self.timed, self.prepared = timed, prepared or (lambda features: features)

    @property
    def burst(self) -> int:
        """Pictures that are decoded, and described, one right after the other.

        It saves a part of the work, and most of the waking of threads. No answer comes later, except by the
        time to describe the pictures of one burst. So a network, which takes long, gets single pictures.
        """
        return min(CHUNK, self.sampling.stride) if self.extractor.network is None else 1

    def forget(self) -> None:
        """Forget the history, as for a new source."""
        self.steps, self.frames, self.lost = Steps(self.extractor, self.sampling), 0, 0
        self._waiting.clear()
        self.recent.clear()
        self.count = 0

    def push(self, pictures: np.ndarray) -> Answer | None:
        """Take frames (n, H, W, 3) at `sampling.fps`. Returns an answer if they complete a step."""
        began = time.perf_counter()
        self.frames += len(pictures)
        with self.timed("features"):
            self._waiting += map(self.extractor.prepare, pictures)
            completed = []
            if len(self._waiting) >= min(self.burst, self.steps.missing):
                completed = self.steps.push(np.stack(self._waiting))
                self._waiting.clear()
        if not completed:
            return None
        self.recent.extend(completed)
        self.count += len(completed)
        with self.timed("localization"):
            return self._answer(began)

    def _answer(self, began):
        now_s = self.frames / self.sampling.fps
        about_s = max(0.0, now_s - self.delay_s)
        first = self.count - len(self.recent)  # index of the first step in the history
        features = torch.from_numpy(self.prepared(np.stack(self.recent).astype(np.float32))).T
        length_s = (features.shape[1] - 1) * self.spec.stride_s + self.spec.window_s
        item = unannotated("live", features, length_s, self.spec.stride_s, self.spec.window_s, self.classes)
        table = self.model.detect(collate([item]))[0]
        at = about_s - first * self.spec.stride_s
        scores = dict.fromkeys(self.classes, 0.0)
        for start, end, label, score in zip(table.start, table.end, table.label, table.score):
            if start <= at < end:
                scores[label] = max(scores[label], float(score))
        label = max(scores, key=scores.get)
        return Answer(
            about_s + self.lost / self.sampling.fps,
            label if scores[label] >= self.threshold else None,
            scores[label],
            scores,
            time.perf_counter() - began,
        )
