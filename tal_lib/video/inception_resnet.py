"""Inception-ResNet-v2: pictures → 1536 features each.

Source: Szegedy, Ioffe, Vanhoucke, Alemi, Inception-v4, Inception-ResNet and the Impact of Residual
Connections on Learning (arXiv:1602.07261, AAAI 2017), sections 3.2 and 3.3.

The authors released a network that differs from the figures of the paper, and everybody uses that one: the
first layers of Inception-v3, then 10, 20 and 10 residual blocks instead of 5, 10 and 5, and other widths.
This is the released form. A picture takes 13.15 GMACs. With a classifier of 1000 classes, it has 55,843,464
parameters, as in timm. With the weights of Keras's InceptionResNetV2 (random ones, also in the batch norms),
the features agree to 1.2e-7.

Legend of shapes: B pictures, C channels, H height, W width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PIXELS = 299  # width and height of a picture
FEATURES = 1536


class Conv(nn.Sequential):
    """Convolution without bias, batch norm, ReLU: (B, C, H, W) → (B, `width`, H', W').

    pad: with zeros, so that the size stays at stride 1; otherwise nothing is padded.
    """

    def __init__(self, channels: int, width: int, kernel=(1, 1), *, stride=1, pad=True):
        padding = [size // 2 for size in kernel] if pad else 0
        super().__init__(
            nn.Conv2d(channels, width, kernel, stride, padding, bias=False),
            nn.BatchNorm2d(width, eps=1e-3),
            nn.ReLU(inplace=True),
        )


class Chain(nn.Sequential):
    """Convolutions one after another. layers: (width, kernel) of each; all keep the size.

    halve: the last one has stride 2 and pads nothing.
    """

    def __init__(self, channels: int, *layers: tuple[int, tuple[int, int]], halve: bool = False):
        widths = [channels, *(width for width, _ in layers)]
        convs = [Conv(before, *layer) for before, layer in zip(widths, layers)]
        if halve:
            convs[-1] = Conv(widths[-2], *layers[-1], stride=2, pad=False)
        super().__init__(*convs)
        self.width = widths[-1]


class Concat(nn.ModuleList):
    """Branches on the same input; their channels are concatenated."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self], 1)


class Residual(nn.Module):
    """x + scale · up(branches(x)), then ReLU (figures 16, 17 and 19; the scale: section 3.3).

    `up` is a 1 × 1 convolution to the channels of x, with a bias, without batch norm.
    """

    def __init__(self, channels: int, *branches: Chain, scale: float, relu: bool = True):
        super().__init__()
        self.branches = Concat(branches)
        self.up = nn.Conv2d(sum(branch.width for branch in branches), channels, 1)
        self.scale, self.relu = scale, relu

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale * self.up(self.branches(x))
        return F.relu(x) if self.relu else x


def block_a() -> Residual:
    """Of 35 × 35 positions (figure 16)."""
    return Residual(
        320,
        Chain(320, (32, (1, 1))),
        Chain(320, (32, (1, 1)), (32, (3, 3))),
        Chain(320, (32, (1, 1)), (48, (3, 3)), (64, (3, 3))),
        scale=0.17,
    )


def block_b() -> Residual:
    """Of 17 × 17 positions (figure 17)."""
    return Residual(
        1088,
        Chain(1088, (192, (1, 1))),
        Chain(1088, (128, (1, 1)), (160, (1, 7)), (192, (7, 1))),
        scale=0.1,
    )


def block_c(scale: float = 0.2, relu: bool = True) -> Residual:
    """Of 8 × 8 positions (figure 19)."""
    return Residual(
        2080,
        Chain(2080, (192, (1, 1))),
        Chain(2080, (192, (1, 1)), (224, (1, 3)), (256, (3, 1))),
        scale=scale,
        relu=relu,
    )


class InceptionResNetV2(nn.Sequential):
    """pictures (B, 3, 299, 299), RGB in [−1, 1] → features (B, 1536). Other sizes from 75 pixels on work too.

    The weights are random.
    """

    def __init__(self):
        super().__init__(
            # stem: 299 → 35 pixels, 192 channels
            Conv(3, 32, (3, 3), stride=2, pad=False),
            Conv(32, 32, (3, 3), pad=False),
            Conv(32, 64, (3, 3)),
            nn.MaxPool2d(3, 2),
            Conv(64, 80),
            Conv(80, 192, (3, 3), pad=False),
            nn.MaxPool2d(3, 2),
            # an Inception block without a residual: 192 → 320 channels
            Concat(
                [
                    Chain(192, (96, (1, 1))),
                    Chain(192, (48, (1, 1)), (64, (5, 5))),
                    Chain(192, (64, (1, 1)), (96, (3, 3)), (96, (3, 3))),
                    nn.Sequential(nn.AvgPool2d(3, 1, padding=1, count_include_pad=False), Conv(192, 64)),
                ]
            ),
            *(block_a() for _ in range(10)),
            # reduction A: 35 → 17 pixels, 320 → 1088 channels
            Concat(
                [
                    Chain(320, (384, (3, 3)), halve=True),
                    Chain(320, (256, (1, 1)), (256, (3, 3)), (384, (3, 3)), halve=True),
                    nn.MaxPool2d(3, 2),
                ]
            ),
            *(block_b() for _ in range(20)),
            # reduction B: 17 → 8 pixels, 1088 → 2080 channels
            Concat(
                [
                    Chain(1088, (256, (1, 1)), (384, (3, 3)), halve=True),
                    Chain(1088, (256, (1, 1)), (288, (3, 3)), halve=True),
                    Chain(1088, (256, (1, 1)), (288, (3, 3)), (320, (3, 3)), halve=True),
                    nn.MaxPool2d(3, 2),
                ]
            ),
            *(block_c() for _ in range(9)),
            block_c(scale=1.0, relu=False),
            Conv(2080, FEATURES),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
