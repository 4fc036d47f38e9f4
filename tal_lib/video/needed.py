"""Decode a video without the frames that nothing needs: no other frame refers to them, and nobody shows them.

At 2 pictures per second most frames of a video are never shown. A decoder has to decode those that others
refer to, but not the rest. The frames that do come are the same, to the last bit.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable

import av

CODECS = ("h264", "hevc")  # whose decoders can leave out single frames
AHEAD = 32  # packets; the next frame to be shown is within 16 of them, as far as these codecs reorder


def needed_frames(
    packets: Iterable[av.Packet], codec: av.VideoCodecContext, shown: Callable[[float, float], bool]
) -> Generator[av.VideoFrame, None, None]:
    """The frames of one stream in order of time, perhaps without those that are not shown.

    Args:
        packets: the stream's, from `container.demux`. At most `AHEAD` of them are read ahead. An error in
            reading them comes after the frames before it.
        codec: decodes the stream.
        shown: whether a frame is used that is shown from one time until another (seconds, as `frame.time`).
    """
    if codec.name not in CODECS:
        for packet in packets:
            yield from packet.decode()
        return
    for packet, until in _with_next_time(packets):
        leave_out = until is not None and not shown(float(packet.pts * packet.time_base), until)
        codec.skip_frame = "NONREF" if leave_out else "DEFAULT"
        yield from packet.decode()


def _with_next_time(packets):
    """(packet, seconds at which the next frame is shown). None if that is not known.

    Near packets suffice: if the next frame is not among them, a later time is given, never an earlier one.
    """
    packets, ahead, before, end = iter(packets), deque(), deque(maxlen=AHEAD), None
    while True:
        while end is None and len(ahead) <= AHEAD:
            try:
                ahead.append(next(packets))
            except Exception as error:  # comes after the packets before it
                end = error
        if not ahead:
            if isinstance(end, StopIteration):
                return
            raise end
        packet = ahead.popleft()
        times = packet.dts, packet.pts
        yield (
            packet,
            _next_time(packet, [*before, times, *((near.dts, near.pts) for near in ahead if near.size)]),
        )
        before.append(times)


def _next_time(packet, near):
    """The time of the frame after this one. None if the times near it are incomplete or start again."""
    decoded, shown = zip(*near)
    if None in decoded or None in shown or any(a >= b for a, b in zip(decoded, decoded[1:])):
        return None
    later = [time for time in shown if time > packet.pts]
    return float(min(later) * packet.time_base) if later else None
