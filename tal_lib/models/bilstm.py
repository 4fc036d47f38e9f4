"""bilstm: a bidirectional LSTM labels every step of short sequences; runs of one class become segments.

Sequences run in parallel, so the slow recurrence is as long as a sequence, not as the recording.

Source: the project's brief, after Ullah et al., Action Recognition in Video Sequences using Deep
Bi-directional LSTM with CNN Features, IEEE Access 2018.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.models.parts.candidates import PostProcess
from tal_lib.models.parts.conv import ceil_div, masked, to_keep
from tal_lib.models.parts.dense import DenseConfig, DenseDetector
from tal_lib.models.parts.registry import register
from tal_lib.validation import BelowOne, Size, SizeOrZero


@dataclass(frozen=True, kw_only=True)
class BiLSTMConfig(DenseConfig):
    """Options of bilstm."""

    width: Size = 512  # of each direction
    layers: Size = 2  # LSTM layers
    sequence: Size = 15  # steps that a sequence labels
    context: SizeOrZero = 0  # further steps it sees on either side
    dropout: BelowOne = 0.1  # between the layers, if there are several


@register(
    "bilstm",
    family="dense",
    paper=BiLSTMConfig(post=PostProcess(voting_tiou=0.0)),
    compact=BiLSTMConfig(width=64, sequence=32, context=16, post=PostProcess(voting_tiou=0.0)),
)
class BiLSTM(DenseDetector):
    """forward: features (B, D, T) → class logits (B, T, K + 1)."""

    config: BiLSTMConfig

    def __init__(self, config: BiLSTMConfig, input_dim: int, num_classes: int):
        super().__init__(config, input_dim, num_classes)
        self.lstm = nn.LSTM(
            input_dim,
            config.width,
            config.layers,
            batch_first=True,
            bidirectional=True,
            dropout=config.dropout if config.layers > 1 else 0.0,
        )
        self.out = nn.Linear(2 * config.width, num_classes + 1)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        x = masked(features.transpose(1, 2), to_keep(mask, features))
        batch, steps, dim = x.shape
        sequence, context = self.config.sequence, self.config.context
        count = ceil_div(steps, sequence)
        x = F.pad(x, (0, 0, context, context + count * sequence - steps))
        x = x.unfold(1, sequence + 2 * context, sequence).transpose(
            2, 3
        )  # (B, count, sequence + 2 context, D)
        hidden = self.lstm(x.reshape(batch * count, -1, dim))[0][:, context : context + sequence]
        return (self.out(hidden.reshape(batch, count * sequence, -1)[:, :steps]),)
