"""ActionMamba: ActionFormer's frame with selective state-space blocks.

The preset `paper` has the published parameters and the outputs of the authors' code
(OpenGVLab/video-mamba-suite) on inputs without padding. Its losses agree too. Some things differ on purpose.
Padded steps are zero before the scan; in their code the backward scan begins inside the padding, so their
outputs depend on how much was padded. The skip D has no weight decay. The norm's eps is OpenTAD's (option
`norm_eps`). A detection whose clipped segment has length zero is dropped. `docs/fidelity.md` has the
comparison.

Sources: Chen et al., Video Mamba Suite: State Space Model as a Versatile Alternative for Video Understanding,
2024 (DBM and ViM blocks, appendix); Gu, Dao, Mamba: Linear-Time Sequence Modeling with Selective State
Spaces, 2023, algorithm 2.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.models.parts.blocks import DropPath
from tal_lib.models.parts.candidates import PostProcess
from tal_lib.models.parts.conv import DepthwiseConv, exporting, halve, masked, max_pool
from tal_lib.models.parts.published import PUBLISHED_POST
from tal_lib.models.parts.pyramid import AUTHORS, PyramidConfig, PyramidDetector
from tal_lib.models.parts.registry import register
from tal_lib.models.parts.scan import linear_scan
from tal_lib.validation import BelowOne, Positive, Size, require


@dataclass(frozen=True, kw_only=True)
class ActionMambaConfig(PyramidConfig):
    """THUMOS14 values by default."""

    # dbm: both directions share parameters, each scans its part of the projected channels;
    # vim: each has its own, on all channels
    block: Literal["dbm", "vim"] = "dbm"
    # dbm: channels that each direction scans, per channel of the width; compact: 0.5, half of the published
    expand: Positive = 1.0
    # of the LayerNorm before the mixer: OpenTAD's value; the authors' repository leaves it at 1e-5
    norm_eps: Positive = 1e-6
    state: Size = 16  # N, size of the state of a channel
    conv_kernel: Size = 4  # of the depthwise convolution before the scan, steps
    drop_path: BelowOne = 0.3  # the block's own rate; the 0.1 of their configuration file never reaches it

    def check(self):
        super().check()
        scanned = self.expand * self.width
        require(
            scanned >= 1 and scanned == int(scanned),
            f"expand={self.expand:g}, width={self.width}: {scanned:g} channels scan each way",
            "Choose expand and width so that their product is a whole number.",
        )


class SelectiveScan(nn.Module):
    """Causal convolution → selective state space; (B, T, C) → same.

    h_t = exp(Δ_t A) h_(t−1) + Δ_t B_t x_t, y_t = C_t h_t + D x_t; Δ, B, C from x. Source: Mamba, algorithm 2.
    """

    LONGEST = (
        4096  # at inference longer recordings are scanned in stretches of this many steps, to bound memory
    )

    def __init__(self, channels: int, state: int, rank: int, kernel: int):
        super().__init__()
        self.state, self.rank = state, rank
        self.conv = DepthwiseConv(channels, kernel, bias=True, causal=True)
        self.parameters_of = nn.Linear(channels, rank + 2 * state, bias=False)  # Δ's factors, B, C
        self.step = nn.Linear(rank, channels)
        nn.init.uniform_(self.step.weight, -(rank**-0.5), rank**-0.5)
        self.draw_step_bias()
        self.log_a = nn.Parameter(
            torch.arange(1, state + 1, dtype=torch.float32).log().repeat(channels, 1)
        )  # (C, N)
        self.skip = nn.Parameter(torch.ones(channels))

    def draw_step_bias(self) -> None:
        """Draw the initial bias of Δ: softplus(bias) is log-uniform in [1e-3, 0.1]."""
        drawn = torch.rand(self.step.out_features)
        start = torch.exp(drawn * (math.log(0.1) - math.log(1e-3)) + math.log(1e-3))
        with torch.no_grad():
            self.step.bias.copy_(start + torch.log(-torch.expm1(-start)))

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        x = masked(F.silu(self.conv(x, keep)), keep)
        rate, b, c = self.parameters_of(x).split([self.rank, self.state, self.state], -1)
        delta = F.softplus(self.step(rate))  # (B, T, C)
        a = -self.log_a.exp()
        if exporting():
            h = linear_scan((delta.unsqueeze(-1) * a).exp(), (delta * x).unsqueeze(-1) * b.unsqueeze(2))
            return torch.addcmul((h @ c.unsqueeze(-1)).squeeze(-1), x, self.skip)
        stretch = x.shape[1] if torch.is_grad_enabled() else self.LONGEST
        states, outputs = None, []
        for first in range(0, x.shape[1], stretch):
            at = slice(first, first + stretch)
            decay = (delta[:, at].unsqueeze(-1) * a).exp()  # (B, T, C, N)
            h = linear_scan(decay, (delta[:, at] * x[:, at]).unsqueeze(-1) * b[:, at].unsqueeze(2), states)
            outputs.append((h @ c[:, at].unsqueeze(-1)).squeeze(-1))
            states = h[:, -1]
        y = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)
        return torch.addcmul(y, x, self.skip)


class DBM(nn.Module):
    """Decomposed bidirectional Mamba: half of the projected channels are scanned forward, half backward.

    Both directions share the parameters of their scan, and are gated and concatenated. The projection gives
    d = expand × width channels of signal and d of gate for each direction: forward and backward signal, then
    forward and backward gate (the authors' weights have signal and gate of each direction together).

    Source: Video Mamba Suite, figure 2 (d); their block has expand = 1.
    """

    def __init__(self, c: ActionMambaConfig):
        super().__init__()
        scanned = int(c.expand * c.width)
        self.inner = nn.Linear(c.width, 4 * scanned, bias=False)
        self.scan = SelectiveScan(scanned, c.state, max(1, c.width // 16), c.conv_kernel)
        self.out = nn.Linear(2 * scanned, c.width, bias=False)

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        signal, gate = self.inner(x).chunk(2, -1)
        ahead, back = signal.chunk(2, -1)
        both = torch.cat([ahead, back.flip(1)])  # the two directions as one batch
        y = self.scan(both, None if keep is None else torch.cat([keep, keep.flip(1)]))
        ahead, back = y.chunk(2)
        return self.out(torch.cat([ahead, back.flip(1)], -1) * F.silu(gate))


class ViM(nn.Module):
    """Bidirectional Mamba: both directions scan all channels with separate parameters and are summed.

    Source: Zhu et al., Vision Mamba, 2024.
    """

    def __init__(self, c: ActionMambaConfig):
        super().__init__()
        inner = 2 * c.width
        self.inner = nn.Linear(c.width, 2 * inner, bias=False)
        self.ahead, self.back = (
            SelectiveScan(inner, c.state, max(1, c.width // 16), c.conv_kernel) for _ in range(2)
        )
        self.out = nn.Linear(inner, c.width, bias=False)

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        signal, gate = self.inner(x).chunk(2, -1)
        back = self.back(signal.flip(1), None if keep is None else keep.flip(1)).flip(1)
        return self.out((self.ahead(signal, keep) + back) * F.silu(gate))


class MambaBlock(nn.Module):
    """Norm → DBM or ViM → scaled residual → max-pool if it begins a level."""

    def __init__(self, c: ActionMambaConfig, stride: int):
        super().__init__()
        self.stride = stride
        self.norm = nn.LayerNorm(c.width, eps=c.norm_eps)
        self.mixer = DBM(c) if c.block == "dbm" else ViM(c)
        self.drop = DropPath(c.width, c.drop_path)

    def forward(self, x: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x = self.drop(x, masked(self.mixer(masked(self.norm(x), keep), keep), keep))
        return (max_pool(x, keep), halve(keep)) if self.stride == 2 else (x, keep)


@register(
    "action_mamba",
    family="one_stage",
    paper=ActionMambaConfig(post=PUBLISHED_POST, **AUTHORS),  # learns and decodes as ActionFormer
    compact=ActionMambaConfig(
        width=128, head_width=128, state=8, expand=0.5, norm_eps=1e-5, drop_path=0.1, distance_bias=1.0
    ),
    paper_activitynet=ActionMambaConfig(
        width=256,
        head_width=256,
        loss_norm=200,
        regression_weight=2.0,
        label_smoothing=0.1,
        post=PostProcess(
            min_segment_steps=0.001,
            max_detections=100,
            nms_sigma=0.75,
            multiclass=False,
            voting_tiou=0.9,  # by score: their copy of ActionFormer's voting leaves the tIoU out
        ),
        **AUTHORS,
    ),
)
class ActionMamba(PyramidDetector):
    """Stem of blocks at stride 1, then one block of stride 2 a level; identity neck with a norm a level."""

    config: ActionMambaConfig

    def block(self, stride: int) -> MambaBlock:
        return MambaBlock(self.config, stride)

    def build_heads(self) -> None:
        super().build_heads()
        if self.config.bias_init == "zero":  # that was for the other biases: theirs exempts Mamba's Δ too
            for layer in self.modules():
                if isinstance(layer, SelectiveScan):
                    layer.draw_step_bias()
