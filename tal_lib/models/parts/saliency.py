"""AFSD's layers as its authors' code has them: convolutions with group norms, and the saliency-based
refinement.

Every group norm sees one level of the pyramid at a time. Source: BDNet.py of the authors' repository.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.models.parts.blocks import MaskedGroupNorm
from tal_lib.models.parts.conv import TemporalConv, halve, masked


def glorot(conv: TemporalConv) -> TemporalConv:
    """The convolution with weights from Glorot's uniform distribution and biases of zero."""
    kernel, inputs, outputs = conv.weight.shape
    limit = math.sqrt(6 / (kernel * (inputs + outputs)))
    nn.init.uniform_(conv.weight, -limit, limit)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


class ConvGroupNorm(nn.Module):
    """Convolution → group norm → ReLU; at stride 2 every other step is kept."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.conv, self.norm = TemporalConv(inputs, outputs, kernel), MaskedGroupNorm(groups, outputs)

    def forward(self, x: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x = self.conv(x, keep)
        if self.stride == 2:
            x, keep = x[:, ::2], halve(keep)
        return masked(F.relu(self.norm(x, keep)), keep), keep


class GroupNormConv(nn.Module):
    """Convolution → group norm → ReLU over the levels of a pyramid, which lie end to end."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int):
        super().__init__()
        self.conv = glorot(TemporalConv(inputs, outputs, kernel))
        self.norm = MaskedGroupNorm(groups, outputs)

    def forward(self, x: Tensor, keep: Tensor | None = None, sizes: tuple[int, ...] | None = None) -> Tensor:
        """(B, P, C) → (B, P, C'); sizes: of the levels, one if None."""
        x = self.conv(x, keep, sizes)
        if sizes is None:
            return masked(F.relu(self.norm(x, keep)), keep)
        keeps = [None] * len(sizes) if keep is None else keep.split(sizes, 1)
        x = torch.cat([self.norm(level, part) for level, part in zip(x.split(sizes, 1), keeps)], 1)
        return masked(F.relu(x), keep)


class Downsampling(GroupNormConv):
    """The same at stride 2: output i sees steps 2 i, 2 i + 1 and 2 i + 2.

    The authors' padding gives this for even lengths, which all levels of their clips have. At odd lengths
    theirs would begin one step earlier.
    """

    def __init__(self, channels: int, groups: int):
        super().__init__(channels, channels, 3, groups)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, T, C) → (B, ⌈T / 2⌉, C) and its mask."""
        x = F.pad(masked(x, keep), (0, 0, 0, 2))
        count = (x.shape[1] - 1) // 2
        taps = torch.cat([x[:, tap::2][:, :count] for tap in range(3)], -1)
        x, keep = F.linear(taps, self.conv.weight.flatten(0, 1).T, self.conv.bias), halve(keep)
        return masked(F.relu(self.norm(x, keep)), keep), keep


class GroupNormTower(nn.Module):
    """Convolutions of a head, shared by all levels."""

    def __init__(self, width: int, layers: int, groups: int):
        super().__init__()
        self.layers = nn.ModuleList(GroupNormConv(width, width, 3, groups) for _ in range(layers))

    def forward(self, x: Tensor, keep: Tensor | None, sizes: tuple[int, ...]) -> Tensor:
        for layer in self.layers:
            x = layer(x, keep, sizes)
        return x


class ProposalBranch(nn.Module):
    """Refined features of each point: those at the ends of its coarse segment beside the point's own.

    The maxima around the ends come from the frame-level features and from a head's own tower.
    """

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.point = GroupNormConv(width, width, 1, groups)
        self.ends = GroupNormConv(width, 2 * width, 1, groups)
        self.frame = GroupNormConv(width, width, 1, groups)
        self.mix = GroupNormConv(4 * width, width, 1, groups)

    def forward(
        self,
        x: Tensor,
        frame: Tensor,
        pool: Callable[[Tensor], Tensor],
        keep: Tensor | None,
        sizes: tuple[int, ...],
    ) -> tuple[Tensor, Tensor]:
        """Tower features and pooled frame-level features (B, P, C) → refined features (B, P, C), ends (B, P,
        2 C).

        pool: boundary max-pooling of features (B, P, 2 C) on each level.
        """
        point, ends = self.point(x, keep, sizes), self.ends(x, keep, sizes)
        parts = [self.frame(frame, keep, sizes), pool(ends), point]
        return self.mix(torch.cat(parts, -1), keep, sizes), ends


class SaliencyHead(nn.Module):
    """Refinement of the coarse segments: class logits, offsets of both ends, quality."""

    def __init__(self, width: int, groups: int, classes: int):
        super().__init__()
        self.for_class, self.for_location = ProposalBranch(width, groups), ProposalBranch(width, groups)
        self.class_out, self.offset = (glorot(TemporalConv(width, count, 1)) for count in (classes, 2))
        self.quality = glorot(TemporalConv(width, 1))

    def forward(
        self,
        of_class: Tensor,
        of_location: Tensor,
        frame: Tensor,
        pool: Callable[[Tensor], Tensor],
        keep: Tensor | None,
        sizes: tuple[int, ...],
    ) -> tuple[Tensor, ...]:
        """Features of both towers, pooled frame-level features, all (B, P, C), and `pool` as in
        `ProposalBranch`.

        Returns:
            logits (B, P, classes), offsets (B, P, 2), quality (B, P, 1), ends (B, P, 2 C) of location and
            class.
        """
        location, location_ends = self.for_location(of_location, frame, pool, keep, sizes)
        classes, class_ends = self.for_class(of_class, frame, pool, keep, sizes)
        return (
            self.class_out(classes, keep, sizes),
            self.offset(location, keep, sizes),
            self.quality(location, keep, sizes),
            location_ends,
            class_ends,
        )


def activation(x: Tensor) -> Tensor:
    """How active the halves of the channels are: mean of tanh, (..., C) → (..., 2) for start and end."""
    return x.tanh().unflatten(-1, (2, -1)).mean(-1)
