"""Sources of live frames: a file (played at its own speed, in a loop), a camera, or a network stream."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from itertools import chain, islice, repeat, takewhile

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from tal_lib.data.loading import prefetched
from tal_lib.errors import TalError, one_line
from tal_lib.process.parts import Timed, untimed
from tal_lib.video.addresses import is_live, without_credentials
from tal_lib.video.frames import MOST_PIXELS, Reader, decoded, picture_streams, upright

RETRY_S = (0.5, 1, 2, 5)  # between attempts to reconnect


class Source:
    """Calls `take(picture, index)` for each frame from a separate thread. It reconnects when the source is
    lost.

    Args:
        where: a path, a camera's number or device, or a URL (rtsp://, http://).
        fps: frames per second that are passed on.
        loop: play a file again when it ends.
        burst: pictures of a file that are decoded one right after the other. The next burst is decoded
            while the last one plays, so at most three bursts are in memory.
        restarted: called before a file starts again, and when a source is lost.
        timed: context manager that times `decoding`, without the time that frames are waited for.

    Attributes:
        where: the address without user and password, safe to show.
        state: `starting`, `playing`, `lost` or `ended`.
        problem: why the source is lost.
    """

    def __init__(
        self,
        where: str,
        fps: float,
        take: Callable[[np.ndarray, int], None],
        *,
        size: tuple[int, int] | None = None,
        loop: bool = True,
        burst: int = 1,
        restarted: Callable[[], None] = lambda: None,
        timed: Timed = untimed,
    ):
        self._address, self.where = str(where), without_credentials(where)
        self.fps, self.take, self.size, self.loop, self.restarted = fps, take, size, loop, restarted
        self.burst, self.timed = burst, timed
        self.live, self.state, self.problem, self.rounds = is_live(self._address), "starting", "", 0
        self._stop, self._thread = (
            threading.Event(),
            threading.Thread(target=self._run, name="source", daemon=True),
        )

    def start(self) -> "Source":
        """Start to play."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop. Returns when the thread has ended, or after two seconds."""
        self._stop.set()
        self._thread.join(2)

    def _run(self):
        failures = 0
        while not self._stop.is_set():
            count = 0
            try:
                for picture in self._pictures():
                    if self._stop.is_set():
                        return
                    self.state, self.problem, failures = "playing", "", 0
                    self.take(picture, count)
                    count += 1
                if not self.live:
                    self.rounds += 1
                    if not self.loop:
                        self.state = "ended"
                        return
                    self.restarted()
                    continue
                raise TalError("the stream ended", where=self.where)
            except Exception as error:  # a source may raise any error; the server continues
                self.state, self.problem = "lost", self._reason(error)
                self._stop.wait(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1
                self.restarted()

    def _reason(self, error):
        """The text of an error that is safe to show. Libraries write the whole address with password into
        errors."""
        if isinstance(error, TalError):
            return str(error)
        reason = error.strerror if isinstance(error, (av.FFmpegError, OSError)) else None
        return f"{self.where}: {one_line(reason or type(error).__name__)}"

    def _pictures(self):
        if self.live:
            yield from self._captured()
            return
        began = time.monotonic()
        pictures = decoded(Reader(self._address, self.fps, self.size), self.timed)
        bursts = prefetched(repeat(pictures), lambda rest: [*islice(rest, self.burst)], 1)
        with closing(bursts):
            for index, picture in enumerate(chain.from_iterable(takewhile(len, bursts))):
                wait = began + index / self.fps - time.monotonic()
                if wait > 0:
                    self._stop.wait(wait)
                elif wait < -1:  # the machine was suspended: do not hurry to catch up
                    began -= wait
                yield picture

    def _captured(self):
        """Frames of a camera or stream, reduced to `fps` frames per second."""
        options, where, form = {}, self._address, None
        if where.isdecimal() or where.startswith("/dev/"):
            where, form = (f"/dev/video{where}" if where.isdecimal() else where), "v4l2"
        elif where.startswith(("rtsp://", "rtsps://")):
            options = {"rtsp_transport": "tcp"}
        with av.open(
            where, format=form, options=options, timeout=(10.0, 10.0), metadata_errors="replace"
        ) as container:
            if not (streams := picture_streams(container)):
                raise TalError("has no video frames", where=self.where)
            streams[0].codec_context.options = {"max_pixels": str(MOST_PIXELS)}
            scaler, due = VideoReformatter(), time.monotonic()
            for frame in container.decode(streams[0]):
                if time.monotonic() < due:
                    continue
                due = max(due + 1 / self.fps, time.monotonic() - 1 / self.fps)
                with self.timed("decoding"):
                    picture = upright(frame, self.size, scaler)
                yield picture
