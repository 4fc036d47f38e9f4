"""A pyramid over clips of fixed length: the points of all clips of a recording, end to end."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tal_lib.models.parts.assignment import Points
from tal_lib.models.parts.conv import exporting, to_keep
from tal_lib.models.parts.proposals import cut, window_starts
from tal_lib.models.parts.pyramid import PyramidConfig, PyramidDetector
from tal_lib.validation import SizeOrZero, require


@dataclass(frozen=True, kw_only=True)
class ClipConfig(PyramidConfig):
    """Options of a pyramid over clips, which its group norms see alone; 0: recordings are not cut."""

    clip_steps: SizeOrZero = 0  # steps of a clip; 0: the whole recording
    clip_overlap: SizeOrZero = 0  # of neighbouring clips, steps

    def check(self):
        super().check()
        require(
            self.clip_overlap < max(1, self.clip_steps),
            f"clip_overlap: {self.clip_overlap} with clips of {self.clip_steps}",
            "Choose a smaller overlap than the clips are long.",
        )


def cut_clips(x: Tensor, keep: Tensor | None, clip: int, overlap: int) -> tuple[Tensor, Tensor | None]:
    """Clips (B · W, clip, C) of features (B, T, C), and their mask; None if every step of every clip is
    valid."""
    steps = x.shape[1]
    starts = window_starts(steps, clip, overlap, x.device)
    if keep is None and (exporting() or steps != overlap + len(starts) * (clip - overlap)):
        keep = torch.ones_like(x[..., :1])
    return cut(x, starts, clip, overlap), None if keep is None else cut(keep, starts, clip, overlap)


def clip_points(points: Points, steps: int, clip: int, overlap: int) -> Points:
    """The points of one clip, once for each clip of a recording of `steps` steps."""
    starts = window_starts(steps, clip, overlap, points.position.device)
    count, each = starts.shape[0], points.position.shape[0]
    repeated = lambda value: value.repeat(count)
    # by expansion: traced, `each` is a tensor of the CPU, which cannot repeat one of a GPU
    spread = lambda value: value[:, None].expand(-1, each).reshape(-1)
    rows = spread(torch.arange(count, device=starts.device) * each)
    return Points(
        repeated(points.position) + spread(starts),
        repeated(points.stride),
        repeated(points.low),
        repeated(points.high),
        repeated(points.first) + rows,
        points.level_sizes if exporting() else points.level_sizes * count,
    )


def join_clips(value: Tensor, batch: int) -> Tensor:
    """Values (B · W, P, …) of clips → (B, W · P, …)."""
    return value.unflatten(0, (batch, -1)).flatten(1, 2)


class ClipPyramid(PyramidDetector):
    """A pyramid detector that may cut recordings into clips. A subclass gives `network`."""

    config: ClipConfig

    def network(self, x: Tensor, keep: Tensor | None) -> tuple[Tensor, ...]:
        """Outputs from features (B, T, D) of whole recordings or of clips."""
        raise NotImplementedError

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        c, x, keep = self.config, features.transpose(1, 2), to_keep(mask, features)
        if not c.clip_steps:
            return self.network(x, keep)
        outputs = self.network(*cut_clips(x, keep, c.clip_steps, c.clip_overlap))
        return tuple(join_clips(output, features.shape[0]) for output in outputs)

    def points_of_clip(self, steps: int) -> Points:
        """Points of one clip, or of a recording that is not cut."""
        return super().points(steps)

    def points(self, steps: int) -> Points:
        c = self.config
        points = self.points_of_clip(c.clip_steps or steps)
        return clip_points(points, steps, c.clip_steps, c.clip_overlap) if c.clip_steps else points

    def steps_of(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Number (N,) and validity (B, N) of the steps of all clips, or of the recording's own."""
        c = self.config
        if not c.clip_steps:
            return torch.arange(mask.shape[1], device=mask.device, dtype=torch.float32), mask
        starts = window_starts(mask.shape[1], c.clip_steps, c.clip_overlap, mask.device)
        at = (starts[:, None] + torch.arange(c.clip_steps, device=mask.device)).flatten()
        return at.float(), F.pad(mask, (0, c.clip_steps))[:, at]

    def level_mask(self, mask: Tensor) -> Tensor:
        c = self.config
        if not c.clip_steps:
            return super().level_mask(mask)
        valid = self.steps_of(mask)[1].unflatten(1, (-1, c.clip_steps))
        return super().level_mask(valid.flatten(0, 1)).unflatten(0, (mask.shape[0], -1)).flatten(1)
