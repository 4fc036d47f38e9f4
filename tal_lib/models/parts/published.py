"""Pyramids whose authors released checkpoints: what the published code does with padding.

The code of ActionFormer, TriDet and TemporalMaxer pads each recording to 2,304 steps, a longer one to the
next multiple of the model's coarsest stride. Its convolutions mask their outputs, not their inputs, and the
norms shift the padding away from zero. So the padding influences the last steps (ActionFormer) or, through
means and group norms over all steps, every step (TriDet, TemporalMaxer). By default no invalid step has an
influence here; `padding="authors"` computes what their code computes.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tal_lib.models.parts.candidates import PostProcess
from tal_lib.models.parts.conv import ceil_div, see_padding
from tal_lib.models.parts.pyramid import PyramidConfig, PyramidDetector
from tal_lib.validation import Size

# of their THUMOS14 settings: they name a voting threshold, but their code votes in class-agnostic NMS only
PUBLISHED_POST = PostProcess(voting_tiou=0.0)


@dataclass(frozen=True, kw_only=True)
class PublishedConfig(PyramidConfig):
    """Options of the pyramids with released checkpoints."""

    # none: padding has no influence. authors: every recording is padded as in the released code, and the
    # padding has the influence that it has there; only so a released checkpoint gives its published outputs
    padding: Literal["none", "authors"] = "none"
    padded_steps: Size = 2304  # with padding "authors": the least length, their max_seq_len


class PublishedPyramid(PyramidDetector):
    """A pyramid detector that can pad as its authors do."""

    config: PublishedConfig

    sees_padding = False  # set by `see_padding`

    def __init__(self, config: PublishedConfig, input_dim: int, num_classes: int):
        super().__init__(config, input_dim, num_classes)
        if config.padding == "authors":
            see_padding(self)
            self.not_exportable = (
                "with padding='authors' each recording is padded by its length; build it with padding='none'"
            )

    def padding_multiple(self) -> int:
        """Recordings longer than `padded_steps` are padded to a multiple of this many steps."""
        return 2 ** (len(self.config.ranges) - 1)

    def padded_length(self, steps: int) -> int:
        """The length to which a recording of `steps` steps is padded."""
        least, multiple = self.config.padded_steps, self.padding_multiple()
        return least if steps <= least else ceil_div(steps, multiple) * multiple

    def embed(self, x: Tensor, keep: Tensor | None) -> Tensor:
        if not self.sees_padding:
            return super().embed(x, keep)
        for layer in self.embedding:
            x = layer(x, keep)
        return x

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        if not self.sees_padding:
            return super().forward(features, mask)
        valid = torch.ones_like(features[:, 0], dtype=torch.bool) if mask is None else mask
        lengths = [self.padded_length(steps) for steps in valid.sum(1).tolist()]
        if len(set(lengths)) == 1:
            return self._padded(features, valid, lengths[0])
        # the length to which a recording is padded has an influence too, so no other recording may set it
        groups = [[row for row, other in enumerate(lengths) if other == length] for length in set(lengths)]
        parts = [self._padded(features[rows], valid[rows], lengths[rows[0]]) for rows in groups]
        order = torch.tensor([row for rows in groups for row in rows], device=features.device).argsort()
        return tuple(torch.cat(part)[order] for part in zip(*parts))

    def _padded(self, features, mask, length):
        """Outputs of recordings padded to `length` steps, at the points of the given steps."""
        steps = mask.shape[1]
        room = (0, length - steps)  # below zero: only invalid steps are cut
        outputs = super().forward(F.pad(features * mask.unsqueeze(1), room), F.pad(mask, room))
        strides = [2**level for level in range(len(self.config.ranges))]
        return tuple(
            torch.cat(
                [
                    F.pad(level, (0, 0) * (level.ndim - 2) + (0, ceil_div(steps, stride) - level.shape[1]))
                    for level, stride in zip(
                        output.split([ceil_div(length, stride) for stride in strides], 1), strides
                    )
                ],
                1,
            )
            for output in outputs
        )
