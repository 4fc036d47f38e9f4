"""Read the frames of a video at a constant rate, whatever the file's rate, and write frames into a file."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from tal_lib.errors import TalError
from tal_lib.files import atomic_path
from tal_lib.process.parts import Timed
from tal_lib.provenance import usable_cores
from tal_lib.video.addresses import without_credentials

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts")
MOST_PIXELS = 2**26  # per picture; twice as many as 8K video
LOCAL = {"protocol_whitelist": "file"}  # a playlist that is named like a video cannot reach the network
AGAIN = "Copy, download or convert it again."
SPARE_THREADS = 4  # decode while a finished frame waits to become a picture: a tenth less time on two cores
MOST_THREADS = 16  # ffmpeg chooses no more; each one holds some frames


class Reader:
    """Reads a video file frame by frame. Only the current frame is kept, so the video may be of any length.

    Frames come at times 0, 1 / fps, 2 / fps, …. If the file has another or a variable rate, each frame is the
    newest one shown at that time. Frames are upright, as players show them. Cover pictures and thumbnails are
    ignored.

    Attributes:
        duration: seconds, as the file says; None if it does not say.
        seconds: how much has been read.
        problem: why reading ended early; empty if it did not. The frames before are valid.

    Raises:
        TalError: the file is missing, empty, not a video, without pictures (audio only), or its pictures are
            too large.
    """

    def __init__(self, path: str | Path, fps: float, size: tuple[int, int] | None = None):
        if not fps > 0:
            raise TalError(f"{fps} frames a second", remedy="Give a positive rate.")
        self.path, self.fps, self.size = Path(path), fps, size
        self.shown = without_credentials(path)  # its name in errors
        if self.path.is_dir():
            raise TalError("is a folder, not a video", where=self.shown, remedy="Give a file.")
        if not self.path.is_file():
            raise TalError("file not found", where=self.shown, remedy="Check the path.")
        if not self.path.stat().st_size:
            raise TalError("the file is empty", where=self.shown, remedy="Copy or download it again.")
        with self._open() as container:
            stream = self._stream(container)
            length = container.duration / av.time_base if container.duration else None
            self.duration = float(stream.duration * stream.time_base) if stream.duration else length
            self.native_fps = float(stream.average_rate) if stream.average_rate else None
        self.seconds, self.problem = 0.0, ""

    def _open(self):
        """The open container. The path is always opened as a file, even if it looks like another protocol."""
        try:
            return av.open(f"file:{self.path.absolute()}", metadata_errors="replace", options=LOCAL)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise TalError(
                f"cannot be opened as a video ({type(error).__name__})", where=self.shown, remedy=AGAIN
            ) from None

    def _stream(self, container):
        pictures = picture_streams(container)
        if not pictures:
            kind = "only sound" if container.streams.audio else "only a cover"
            raise TalError(
                f"has no video frames, {kind}"
                if container.streams.audio or container.streams.video
                else "has no video stream",
                where=self.shown,
                remedy="Leave it out.",
            )
        stream = pictures[0]
        if (width := stream.width) * (height := stream.height) > MOST_PIXELS:
            raise TalError(
                f"frames of {width} x {height} are too large (at most {MOST_PIXELS:,} pixels)",
                where=self.shown,
                remedy="Convert it to a smaller size, or leave it out.",
            )
        stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}  # the size may change within the file
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = min(usable_cores() + SPARE_THREADS, MOST_THREADS)
        return stream

    def __iter__(self) -> Iterator[np.ndarray]:
        """Pictures (H, W, 3), RGB, uint8, of `size` (width, height) if given."""
        self.problem, shown, picture, last, count = "", None, None, None, 0
        scaler = VideoReformatter()
        for time, frame in self._decoded():
            while shown is not None and count / self.fps < time - 1e-6:
                picture = self._picture(shown, scaler) if picture is None else picture
                if picture is None:
                    break
                yield picture
                last = picture
                count += 1
                self.seconds = count / self.fps
            if self.problem:
                break
            shown, picture = frame, None  # a frame becomes a picture only when it is shown
        else:
            picture = self._picture(shown, scaler) if picture is None and shown is not None else picture
        picture = last if picture is None else picture
        if picture is None:
            raise TalError("not one frame can be decoded", where=self.shown, remedy=AGAIN)
        yield picture
        self.seconds = (count + 1) / self.fps
        if self.duration and not self.problem and self.seconds < 0.9 * self.duration - 1:
            self.problem = f"ends after {self.seconds:.1f} of {self.duration:.1f} s"

    def _picture(self, frame, scaler):
        """The picture of a frame. None, and the problem is noted, if the frame is damaged."""
        try:
            return upright(frame, self.size, scaler)
        except (av.FFmpegError, OSError, ValueError) as error:
            return self._ends(error)

    def _ends(self, error):
        self.problem = f"cannot be read beyond {self.seconds:.1f} s ({type(error).__name__})"

    def _decoded(self):
        """(seconds from the first frame, frame) in order of time."""
        with self._open() as container:
            stream, first, last = self._stream(container), None, -1.0
            frames = container.decode(stream)
            while True:
                try:
                    frame = next(frames, None)
                except (av.FFmpegError, OSError, ValueError) as error:
                    return self._ends(error)
                if frame is None:
                    return
                time = frame.time if frame.time is not None else last + 1 / (self.native_fps or self.fps)
                first = time if first is None else first
                if time - first <= last:  # the time does not advance
                    continue
                last = time - first
                yield last, frame


def decoded(pictures: Iterable[np.ndarray], timed: Timed) -> Iterator[np.ndarray]:
    """The same pictures. The time that each takes to come is counted as `decoding`."""
    waiting = iter(pictures)
    while True:
        with timed("decoding"):
            picture = next(waiting, None)
        if picture is None:
            return
        yield picture


def picture_streams(container) -> list:
    """The video streams of an open container, without cover pictures and thumbnails."""
    return [
        stream
        for stream in container.streams.video
        if not stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
    ]


def upright(
    frame: av.VideoFrame, size: tuple[int, int] | None = None, scaler: VideoReformatter | None = None
) -> np.ndarray:
    """The picture (H, W, 3), RGB, uint8, of a frame, rotated by its display matrix.

    Args:
        size: (width, height) of the picture; None keeps the frame's size.
        scaler: prepares the conversion once for frames that are alike, if they share it.
    """
    turns = round(frame.rotation / 90) % 4  # counterclockwise
    width, height = size or ((frame.height, frame.width) if turns % 2 else (frame.width, frame.height))
    if turns % 2:
        width, height = height, width
    scaler = scaler or VideoReformatter()
    # with more threads, waiting for them takes longer than the conversion
    picture = scaler.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: int) -> Path:
    """Write pictures (H, W, 3), RGB, uint8, of even width and height as an H.264 file. No partial file is
    left.

    One thread encodes: what x264 writes depends on the number of threads, and that on the number of cores.
    """
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = None
        for picture in frames:
            if stream is None:
                stream = container.add_stream(
                    "libx264", rate=fps, options={"preset": "veryfast", "crf": "23", "threads": "1"}
                )
                stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
            for packet in stream.encode(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            ):
                container.mux(packet)
        if stream is None:
            raise TalError("no frames to write", where=path, remedy="Give at least one.")
        for packet in stream.encode():
            container.mux(packet)
    return Path(path)


def videos_in(path: str | Path) -> list[Path]:
    """The video itself, or all videos of a folder, sorted by name."""
    path = Path(path)
    if not path.is_dir():
        return [path]
    videos = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.is_dir())
    if not videos:
        raise TalError(
            f"no video ({', '.join(SUFFIXES)}) in the folder", where=path, remedy="Check the path."
        )
    return videos
