"""One live stream: frames come in, answers and pictures go out.

A slow model or viewer misses frames. Nobody waits for it.
"""

import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from tal_lib.errors import TalError
from tal_lib.process.parts import Parts, real_time_factor
from tal_lib.video.live import Answer, LiveDetector
from tal_lib.video.overlay import draw_action, to_jpeg
from tal_lib.video.source import Source

BUFFER = 16  # frames that wait for the model; the oldest are dropped
TIMELINE = 240  # answers that are kept
WORK = ("decoding", "features", "localization")  # parts of the real-time factor; drawing serves viewers only


def drawn(detector: LiveDetector, picture: np.ndarray, answer: Answer | None) -> bytes:
    """JPEG of a picture (H, W, 3) with an answer."""
    with detector.timed("drawing"):
        label, score = (answer.label, answer.score) if answer else (None, 0.0)
        return to_jpeg(draw_action(picture, label, score, detector.classes))


class Stream:
    """Source → buffer → model → newest picture and statistics.

    A picture is drawn when the first viewer asks for it, once for all viewers.

    Args:
        where: see `Source`.
        on_answer: called with every answer, from the model's thread.
    """

    def __init__(
        self,
        where: str,
        detector: LiveDetector,
        *,
        loop: bool = True,
        on_answer: Callable[[Answer], None] = lambda answer: None,
    ):
        self.detector, self.on_answer, self.parts = detector, on_answer, Parts()
        detector.timed = self.parts.timed
        size = detector.extractor.size
        self.source = Source(
            where,
            detector.sampling.fps,
            self._take,
            size=size,
            loop=loop,
            burst=detector.burst,
            restarted=self._restart,
            timed=self.parts.timed,
        )
        self._waiting, self._arrived = deque(), threading.Condition()
        self._busy = False  # whether the model works on pictures that no longer wait
        self._newest: tuple[np.ndarray, Answer | None] | None = None  # picture and answer
        self._number, self._newer = 0, threading.Condition()
        self._drawn, self._drawing = (0, b""), threading.Lock()  # number and JPEG of the last drawn picture
        self._lock = threading.Lock()  # protects the statistics below
        self._fresh = False  # whether the detector must forget its history before the next frame
        self._lost = 0  # frames that were dropped since the last batch
        self.frames = self.dropped = self.viewers = self.failures = 0
        self.seconds = dict.fromkeys(detector.classes, 0.0) | {"nothing": 0.0}
        self.score_sums, self.answers = dict.fromkeys(detector.classes, 0.0), 0
        self.timeline: deque[Answer] = deque(maxlen=TIMELINE)
        self._latencies, self._paces = deque(maxlen=1000), deque(maxlen=400)
        self._began, self._stop = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._infer, name="model", daemon=True)

    def start(self) -> "Stream":
        """Start both threads."""
        self._thread.start()
        self.source.start()
        return self

    def play(self, seconds: float = math.inf) -> "Stream":
        """Start, wait until a file has ended or `seconds` have passed, answer what is left, and stop.

        Raises:
            TalError: the source was lost.
        """
        self.start()
        until = time.monotonic() + seconds
        while self.source.state in ("starting", "playing") and time.monotonic() < until:
            self._stop.wait(0.05)
        self.source.stop()
        with self._arrived:
            self._arrived.wait_for(lambda: not (self._waiting or self._busy), 10.0)
        self.stop()
        if self.source.problem:
            raise TalError(self.source.problem)
        return self

    def stop(self) -> None:
        """Stop both threads."""
        self._stop.set()
        self.source.stop()
        with self._arrived:
            self._arrived.notify_all()
        self._thread.join(5)
        with self._newer:
            self._newer.notify_all()

    @property
    def alive(self) -> bool:
        """Whether the model's thread is running."""
        return self._thread.is_alive()

    # input, from the source's thread

    def _take(self, picture, index):
        with self._arrived:
            if len(self._waiting) >= BUFFER:
                self._waiting.popleft()
                self.dropped += 1
                self._lost += 1
            self._waiting.append((picture, time.perf_counter()))
            self._arrived.notify_all()

    def _restart(self):
        with self._arrived:
            self._waiting.clear()
            self._fresh, self._lost = True, 0

    # inference, in the model's thread

    def _infer(self):
        last: Answer | None = None
        while not self._stop.is_set():
            with self._arrived:
                self._busy = False
                self._arrived.notify_all()
                self._arrived.wait_for(lambda: self._waiting or self._stop.is_set(), 1.0)
                batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
                self._busy = bool(batch)
                fresh, self._fresh = self._fresh, False
                lost, self._lost = self._lost, 0
            if fresh:
                self.detector.forget()
                last = None
            self.detector.lost += lost
            if not batch:
                continue
            try:
                answer = self.detector.push(np.stack([picture for picture, _ in batch]))
            except Exception:  # one bad frame must not end the stream
                with self._lock:
                    self.failures += 1
                passed = self.detector.frames + self.detector.lost
                self.detector.forget()
                self.detector.lost = passed
                continue
            since_s = answer.time_s - last.time_s if answer and last else self.detector.sampling.stride_s
            last = answer or last
            self._publish(batch[-1][0], last)
            with self._lock:
                self.frames += len(batch)
                self._paces.append((time.monotonic(), len(batch)))
                if answer:
                    self._count(answer, since_s, time.perf_counter() - batch[-1][1])
            if answer:
                self.on_answer(answer)

    def _count(self, answer, since_s, latency_s):
        """Add an answer to the statistics. since_s: seconds of video since the last answer."""
        self.seconds[answer.label or "nothing"] += since_s
        for label, score in answer.scores.items():
            self.score_sums[label] += score
        self.answers += 1
        self.timeline.append(answer)
        self._latencies.append(latency_s)

    def _seconds_per_second(self, parts):
        """Seconds of work in these parts per second of video."""
        video_s = (self.frames + self.dropped) / self.detector.sampling.fps
        factor = real_time_factor(self.parts.total(parts), video_s)
        return None if factor is None else round(factor, 4)

    def _publish(self, picture, answer):
        with self._newer:
            self._newest, self._number = (picture, answer), self._number + 1
            self._newer.notify_all()

    def _jpeg(self, number, picture, answer):
        """(number, JPEG) of this picture, or of a newer one that is drawn already."""
        with self._drawing:
            if self._drawn[0] < number:
                try:
                    self._drawn = number, drawn(self.detector, picture, answer)
                except Exception:  # one bad frame must not end the stream: viewers keep the picture before
                    self._drawn = number, self._drawn[1]
                    with self._lock:
                        self.failures += 1
            return self._drawn

    # output, for viewers

    def admit(self, most: int) -> bool:
        """Reserve a viewer's place if fewer than `most` are in use. Returns whether it did.

        The caller releases the place with `dismiss`.
        """
        with self._lock:
            free = self.viewers < most
            self.viewers += free
        return free

    def dismiss(self) -> None:
        """Release a viewer's place."""
        with self._lock:
            self.viewers -= 1

    def pictures(self, keep_alive_s: float = 2.0, disconnected: Callable[[], bool] = lambda: False):
        """Yield JPEGs for one viewer: always the newest picture.

        After `keep_alive_s` without a new picture, the last one is sent again.

        It ends with the stream, or when `disconnected()` says that the viewer has left.
        """
        seen = -1
        while not self._stop.is_set() and not disconnected():
            with self._newer:
                self._newer.wait_for(lambda: self._number != seen or self._stop.is_set(), keep_alive_s)  # noqa: B023
                newest, number = self._newest, self._number
            seen, jpeg = self._jpeg(number, *newest) if newest else (number, b"")
            if jpeg:
                yield jpeg

    def analytics(self) -> dict:
        """The statistics, as values that JSON can hold."""
        with self._lock:
            last = self.timeline[-1] if self.timeline else None
            latencies, now = [1e3 * seconds for seconds in self._latencies], time.monotonic()
            recent = [(at, count) for at, count in self._paces if now - at < 10]
            span = min(10.0, now - self._began)
            return {
                "state": self.source.state,
                "problem": self.source.problem,
                "uptime_s": round(now - self._began, 1),
                "rounds": self.source.rounds,
                "action": None
                if last is None
                else {"label": last.label, "score": round(last.score, 3), "time_s": round(last.time_s, 2)},
                "seconds_by_class": {label: round(value, 2) for label, value in self.seconds.items()},
                "mean_score_by_class": {
                    label: round(value / max(1, self.answers), 4) for label, value in self.score_sums.items()
                },
                "latency_ms": None
                if not latencies
                else {
                    "mean": round(statistics.fmean(latencies), 2),
                    "p50": round(float(np.percentile(latencies, 50)), 2),
                    "p95": round(float(np.percentile(latencies, 95)), 2),
                },
                "frames": self.frames,
                "frames_per_s": round(sum(count for _, count in recent) / max(span, 1e-9), 2),
                "dropped_frames": self.dropped,
                "real_time_factor": self._seconds_per_second(WORK),
                "drawing_factor": self._seconds_per_second(("drawing",)),
                "failures": self.failures,
                "viewers": self.viewers,
                "memory_mb": memory_mb(),
                "classes": list(self.detector.classes),
                "stride_s": self.detector.sampling.stride_s,
                "timeline": [
                    {
                        "time_s": round(answer.time_s, 2),
                        "label": answer.label,
                        "scores": {
                            label: round(score, 3) for label, score in answer.scores.items() if score >= 0.05
                        },
                    }
                    for answer in self.timeline
                ],
            }


def memory_mb() -> float | None:
    """Resident memory of this process (MiB); None on systems without `/proc`."""
    try:
        with open("/proc/self/status") as status:
            return round(next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024, 1)
    except OSError:
        return None
