"""Norms, small networks and residual branches that several models share; tensors are steps-first
(conv.py).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.models.parts.conv import DepthwiseConv, TemporalConv, exporting


def mlp(x: Tensor, grow: nn.Linear, shrink: nn.Linear) -> Tensor:
    """Linear → GELU → linear over (B, T, C).

    Without a gradient it takes the steps in parts, so the wide middle is never allocated whole.
    """
    if torch.is_grad_enabled() or exporting() or x.shape[1] <= 1536:
        return shrink(gelu(grow(x)))
    return torch.cat([shrink(gelu(grow(part))) for part in x.split(1152, 1)], 1)


def gelu(x: Tensor) -> Tensor:
    """GELU of a tensor that nothing else uses: in place without a gradient, which saves a copy of the widest
    tensor."""
    return F.gelu(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)


def zero_biases(model: nn.Module) -> None:
    """Set the biases of all linear layers and convolutions to zero, as the authors of the pyramids do."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear | TemporalConv | DepthwiseConv) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


class MaskedGroupNorm(nn.Module):
    """Group norm over the valid steps and the channels of a group; (B, T, C) → same.

    affine: with a learned scale and shift of each channel.
    """

    sees_padding = False  # set by `see_padding`: normalize over all steps

    def __init__(self, groups: int, channels: int, eps: float = 1e-5, affine: bool = True):
        super().__init__()
        self.groups, self.each, self.eps = groups, channels // groups, eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        # not by x.shape: traced, that is a tensor of the CPU, which cannot repeat one of a GPU
        groups = lambda t: t.unflatten(-1, (self.groups, -1)).mean(-1).repeat_interleave(self.each, -1)
        if keep is None or self.sees_padding:
            x = x - groups(x.mean(1, keepdim=True))
            variance = groups((x * x).mean(1, keepdim=True))
        else:
            count = keep.sum(1, keepdim=True).clamp(min=1)
            x = x - groups((x * keep).sum(1, keepdim=True) / count)
            variance = groups((x * x * keep).sum(1, keepdim=True) / count)
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is None or self.bias is None:
            return x * scale
        return torch.addcmul(self.bias, x, scale * self.weight)


class InstanceNorm(nn.Module):
    """Normalize each channel of each recording to mean 0 and variance 1 over its valid steps; (B, T, C) →
    same.

    A learned scale and shift follow. What all steps of a recording share, such as how a sensor is worn, is
    removed.

    Source: Ulyanov et al., Instance Normalization (2016).
    """

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        if keep is None:
            x = x - x.mean(1, keepdim=True)
            variance = (x * x).mean(1, keepdim=True)
        else:
            count = keep.sum(1, keepdim=True).clamp(min=1)
            x = x - (x * keep).sum(1, keepdim=True) / count
            variance = (x * x * keep).sum(1, keepdim=True) / count
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return (
            torch.addcmul(self.bias, x, scale) if torch.is_grad_enabled() else x.mul_(scale).add_(self.bias)
        )  # x is its own by now


class HalfInstanceNorm(nn.Module):
    """Instance norm of the first half of the channels, layer norm of the others; (B, T, C) → same.

    What a recording shares is removed from one half only, so the other half still knows what a whole
    recording consists of.

    Source: Pan et al., IBN-Net (ECCV 2018), with layer norm in the place of batch norm.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.first = channels // 2
        self.instance, self.layer = InstanceNorm(self.first), nn.LayerNorm(channels - self.first)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        return torch.cat([self.instance(x[..., : self.first], keep), self.layer(x[..., self.first :])], -1)


def step_norm(norm: str, channels: int) -> nn.Module:
    """The norm of a name: `layer` over the channels of a step, `instance` over the steps of a recording,
    `half` one of them for each half of the channels."""
    return {"layer": nn.LayerNorm, "instance": InstanceNorm, "half": HalfInstanceNorm}[norm](channels)


class ConvNormReLU(nn.Module):
    """Convolution (by default without bias) → norm → ReLU. norm: see `step_norm`."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, *, bias: bool = False, norm: str = "layer"
    ):
        super().__init__()
        self.conv = TemporalConv(inputs, outputs, kernel, bias=bias)
        self.norm = step_norm(norm, outputs)

    def forward(self, x: Tensor, keep: Tensor | None = None, sizes: tuple[int, ...] | None = None) -> Tensor:
        x = self.conv(x, keep, sizes)
        return (self.norm(x) if isinstance(self.norm, nn.LayerNorm) else self.norm(x, keep)).relu_()


class DropPath(nn.Module):
    """A residual branch with a learnable scale per channel and stochastic depth per recording ("affine drop
    path").

    Source: ActionFormer (ECCV 2022); scale from Touvron et al., CaiT (ICCV 2021).
    """

    def __init__(self, channels: int, rate: float = 0.0, scale: float = 1e-4):
        super().__init__()
        self.rate = rate
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        """x + scale · branch."""
        scale = self.scale
        if self.training and self.rate > 0:
            keep = 1 - self.rate
            scale = scale * x.new_empty(x.shape[0], 1, 1).bernoulli_(keep) / keep
        return torch.addcmul(x, scale, branch)
