"""window_cnn: classify fixed windows, join neighbours of one class. The simplest baseline.

Source: the project's brief. `plain` is the brief's version: adjacent windows, one threshold, no NMS. The
completed variant (`compact`) overlaps windows, groups at several thresholds and suppresses duplicates.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.models.parts.candidates import PostProcess
from tal_lib.models.parts.conv import TemporalConv, masked, to_keep
from tal_lib.models.parts.dense import DenseConfig, DenseDetector
from tal_lib.models.parts.registry import register
from tal_lib.validation import Size


@dataclass(frozen=True, kw_only=True)
class WindowCNNConfig(DenseConfig):
    """Options of window_cnn."""

    width: Size = 128  # channels of the convolution
    window: Size = 8  # steps
    stride: Size = 2  # steps between windows


PLAIN = WindowCNNConfig(width=256, window=16, stride=16, thresholds=(0.5,), post=PostProcess(nms="none"))


@register(
    "window_cnn",
    family="dense",
    paper=PLAIN,
    compact=WindowCNNConfig(post=PostProcess(voting_tiou=0.0)),
    plain=WindowCNNConfig(window=8, stride=8, thresholds=(0.5,), post=PostProcess(nms="none")),
)
class WindowCNN(DenseDetector):
    """forward: features (B, D, T) → class logits (B, windows, K + 1)."""

    config: WindowCNNConfig

    def __init__(self, config: WindowCNNConfig, input_dim: int, num_classes: int):
        super().__init__(config, input_dim, num_classes)
        self.conv = TemporalConv(input_dim, config.width)
        self.out = nn.Linear(config.width, num_classes + 1)

    def cell_stride(self) -> int:
        return self.config.stride

    def cell_width(self) -> int:
        return self.config.window

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        x = masked(features.transpose(1, 2), to_keep(mask, features))
        batch, steps, dim = x.shape
        window, stride, cells = self.config.window, self.config.stride, self.cells(steps)
        x = F.pad(x, (0, 0, 0, window + stride))
        windows = x.unfold(1, window, stride)[:, :cells].transpose(2, 3).reshape(batch * cells, window, dim)
        pooled = F.relu(self.conv(windows)).amax(1)
        return (self.out(pooled).reshape(batch, cells, -1),)
