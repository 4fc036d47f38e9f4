"""text_pyramid: the one-stage pyramid whose class head reads names. The simplest zero-shot localizer, and the measure of others.

ActionFormer's network; in place of a weight a class, every point has a vector, and a class's logit is a scaled cosine between that vector
and the class's text. Nothing else is changed, and the boundaries do not know the class.
Source: this project; the head is that of CLIP (Radford et al., ICML 2021) with a sigmoid (Zhai et al., SigLIP, ICCV 2023).
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.models.actionformer import ActionFormer, ActionFormerConfig
from tal_lib.models.blocks import TemporalConv
from tal_lib.models.language import LanguageConfig, ReadsNames, TextSimilarity
from tal_lib.models.pyramid import Scales, Tower
from tal_lib.models.registry import register


@dataclass(frozen=True, kw_only=True)
class TextPyramidConfig(ActionFormerConfig, LanguageConfig):
    """Options of text_pyramid."""

    scale: float = 10.0  # initial, of the cosine


@register("text_pyramid", paper=TextPyramidConfig(text="clip"), compact=TextPyramidConfig(width=128, head_width=128, window=9))
class TextPyramid(ReadsNames, ActionFormer):
    """forward: as ActionFormer."""

    config: TextPyramidConfig

    def build_heads(self) -> None:
        c = self.config
        self.class_tower = Tower(c.width, c.head_width, c.head_layers)
        self.class_vector = TemporalConv(c.head_width, self.begin_text())
        self.similarity = TextSimilarity(c.scale, learned=True, bias=-math.log((1 - c.prior) / c.prior))
        self.boundary_tower = Tower(c.width, c.head_width, c.head_layers)
        self.boundary_out = TemporalConv(c.head_width, 2)
        nn.init.constant_(self.boundary_out.bias, c.distance_bias)
        self.scales = Scales(len(c.ranges))

    def heads(self, x: Tensor, keep: Tensor | None, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
        vectors = self.class_vector(self.class_tower(x, keep, sizes), keep, sizes)
        distances = self.boundary_out(self.boundary_tower(x, keep, sizes), keep, sizes)
        return self.similarity(vectors, self.text), F.relu(self.scales(distances, sizes))
