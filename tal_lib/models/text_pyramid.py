"""text_pyramid: the one-stage pyramid whose class head reads names, as a plain zero-shot baseline.

The network is ActionFormer's. Each point has a vector instead of one weight per class; the logit of a class
is a scaled cosine between that vector and the text of the class. The boundaries do not depend on the class.

Source: this project; the head is that of CLIP (Radford et al., ICML 2021) with a sigmoid (Zhai et al.,
SigLIP, ICCV 2023).
"""

import math
from dataclasses import dataclass

from torch import Tensor

from tal_lib.models.actionformer import ActionFormer, ActionFormerConfig
from tal_lib.models.parts.conv import TemporalConv
from tal_lib.models.parts.language import LanguageConfig, ReadsNames, TextSimilarity
from tal_lib.models.parts.registry import register
from tal_lib.validation import Positive


@dataclass(frozen=True, kw_only=True)
class TextPyramidConfig(ActionFormerConfig, LanguageConfig):
    """Options of text_pyramid."""

    scale: Positive = 10.0  # initial, of the cosine


@register(
    "text_pyramid",
    family="language",
    paper=TextPyramidConfig(text="clip"),
    compact=TextPyramidConfig(width=128, head_width=128, window=9, distance_bias=1.0),
)
class TextPyramid(ReadsNames, ActionFormer):
    """forward: as ActionFormer."""

    config: TextPyramidConfig

    def class_output(self, width: int) -> TemporalConv:
        """The last class convolution gives a vector in the space of the texts; `similarity` compares
        the two.
        """
        c = self.config
        self.similarity = TextSimilarity(c.scale, learned=True, bias=-math.log((1 - c.prior) / c.prior))
        return TemporalConv(width, self.begin_text())

    def heads(self, x: Tensor, keep: Tensor | None, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
        vectors, distances = super().heads(x, keep, sizes)
        return self.similarity(vectors, self.text), distances
