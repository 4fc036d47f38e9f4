"""Frames of a video at a steady rate, whatever the rate of the file, and the way back into a file."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np

from tal_lib.errors import TalError
from tal_lib.files import atomic_path

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts")


class Reader:
    """A video file, one frame after the other; nothing but the current frame is held, so its length does not matter.

    Frames come at times 0, 1 / fps, 2 / fps, …: of a file with another or a variable rate, the newest frame shown by then.

    Attributes:
        duration: seconds, as the file says; None if it does not.
        seconds: how far it has been read.
        problem: why reading ended before the end, empty if it did not; what came before is good.

    Raises:
        TalError: missing, empty, not a video, or without pictures (audio only).
    """

    def __init__(self, path: str | Path, fps: float, size: tuple[int, int] | None = None):
        if not fps > 0:
            raise TalError(f"{fps} frames a second", remedy="Give a positive rate.")
        self.path, self.fps, self.size = Path(path), fps, size
        if not self.path.is_file():
            raise TalError("file not found", where=path, remedy="Check the path.")
        if not self.path.stat().st_size:
            raise TalError("the file is empty", where=path, remedy="Copy or download it again.")
        with self._open() as container:
            stream = self._stream(container)
            length = container.duration / av.time_base if container.duration else None
            self.duration = float(stream.duration * stream.time_base) if stream.duration else length
            self.native_fps = float(stream.average_rate) if stream.average_rate else None
        self.seconds, self.problem = 0.0, ""

    def _open(self):
        try:
            return av.open(str(self.path))
        except (av.FFmpegError, OSError) as error:
            raise TalError(
                f"cannot be opened as a video ({type(error).__name__})",
                where=self.path,
                remedy="Copy, download or convert it again.",
            ) from None

    def _stream(self, container):
        if not container.streams.video:
            raise TalError(
                "has no pictures, only sound" if container.streams.audio else "has no video stream",
                where=self.path,
                remedy="Leave it out.",
            )
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        return stream

    def __iter__(self) -> Iterator[np.ndarray]:
        """Pictures (H, W, 3), RGB, uint8, of `size` (width, height) if given."""
        self.problem, shown, count = "", None, 0
        for time, picture in self._decoded():
            while shown is not None and count / self.fps < time - 1e-6:
                yield shown
                count += 1
                self.seconds = count / self.fps
            shown = picture
        if shown is None:
            raise TalError(
                "not one frame can be decoded", where=self.path, remedy="Copy, download or convert it again."
            )
        yield shown
        self.seconds = (count + 1) / self.fps
        if self.duration and not self.problem and self.seconds < 0.9 * self.duration - 1:
            self.problem = f"ends after {self.seconds:.1f} of {self.duration:.1f} s"

    def _decoded(self):
        """(seconds from the first frame, picture) in order of time."""
        with self._open() as container:
            stream, first, last = self._stream(container), None, -1.0
            frames = container.decode(stream)
            while True:
                try:
                    frame = next(frames, None)
                except (av.FFmpegError, OSError) as error:
                    self.problem = f"cannot be read beyond {self.seconds:.1f} s ({type(error).__name__})"
                    return
                if frame is None:
                    return
                time = frame.time if frame.time is not None else last + 1 / (self.native_fps or self.fps)
                first = time if first is None else first
                if time - first <= last:  # a time that does not advance
                    continue
                last = time - first
                width, height = self.size or (frame.width, frame.height)
                yield last, frame.to_ndarray(format="rgb24", width=width, height=height)


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: int) -> Path:
    """Pictures (H, W, 3), RGB, uint8, of even width and height → an H.264 file, whole or not at all."""
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = None
        for picture in frames:
            if stream is None:
                stream = container.add_stream(
                    "libx264", rate=fps, options={"preset": "veryfast", "crf": "23"}
                )
                stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
            for packet in stream.encode(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            ):
                container.mux(packet)
        if stream is None:
            raise TalError("no pictures to write", where=path, remedy="Give at least one.")
        for packet in stream.encode():
            container.mux(packet)
    return Path(path)


def videos_in(path: str | Path) -> list[Path]:
    """The video itself, or all videos of a folder, sorted by name."""
    path = Path(path)
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not found:
        raise TalError(
            f"no video ({', '.join(SUFFIXES)}) in the folder", where=path, remedy="Check the path."
        )
    return found
