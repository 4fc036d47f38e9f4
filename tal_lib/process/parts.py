"""Time of the parts of a way, such as decoding and the network, and the real-time factor of the way."""

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext

Timed = Callable[[str], AbstractContextManager]  # the name of a part -> times the block


def untimed(part: str) -> AbstractContextManager:
    """A `Timed` that measures nothing."""
    return nullcontext()


class Parts:
    """Seconds spent in each part. Several threads may time parts at once."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def timed(self, part: str):
        """Add the duration of the block to a part."""
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            with self._lock:
                self.seconds[part] = self.seconds.get(part, 0.0) + spent

    def total(self, names: Iterable[str]) -> float:
        """Seconds of these parts together; a part that never ran has none."""
        with self._lock:
            return sum(self.seconds.get(name, 0.0) for name in names)


def real_time_factor(work_s: float, video_s: float) -> float | None:
    """Seconds of work per second of video: below 1 is faster than real time. None without any video."""
    return work_s / video_s if video_s > 0 else None
