"""GAF: AFSD with attention within and between the features of a recording, driven by a generative model.

- intra: a foreground attention λ per step and a gate per channel re-weigh the embedded features.
- inter: every point of the pyramid reads a few latents, which have read all levels.
- generative: a conditional VAE reconstructs the features from a code and λ; λ is rewarded where it explains
them.

Source: Wang et al., Generative Model-Based Feature Attention Module for Video Action Analysis (arXiv
2508.13565), on Lin et al., AFSD (CVPR 2021).

This is a reading of the idea, not a reproduction. The authors' code (Generative-Feature-Model/GAF) attends to
two maps of an I3D network that it trains too, which features do not hold. There λ has a value a channel and
step and replaces the features by their shares, the detector also learns from the background's features, and
whole epochs alternate; docs/fidelity.md lists every difference. Our choices: λ is the sigmoid of a
convolution, and the annotated foreground teaches it too. The VAE and its prior (a code of mean r · λ) follow
Shi et al., DGAM (CVPR 2020), equations 6–11, as the authors' do. DGAM alternates two steps (the VAE with λ
fixed, λ with the VAE fixed); here both happen at once, each without a gradient to the other. The inter
attention is ours; its latents are those of `local_global`. An ablation measures what each part does. The
detector behind it is `afsd`'s, in `paper` as its authors' code has it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.data.batches import Batch
from tal_lib.models.afsd import AFSD, LIGHT, PUBLISHED_POST, AFSDConfig
from tal_lib.models.parts.attention import GlobalContextBlock
from tal_lib.models.parts.conv import TemporalConv, masked
from tal_lib.models.parts.dense import cell_instances
from tal_lib.models.parts.pyramid import join_levels
from tal_lib.models.parts.registry import register
from tal_lib.validation import Finite, NotNegative, Size, require, require_divides


@dataclass(frozen=True, kw_only=True)
class GAFConfig(AFSDConfig):
    """AFSD's values by default."""

    intra: bool = True  # attention within the features of a recording
    inter: bool = True  # attention between the levels, through latents
    heads: Size = 4  # of the inter attention
    latents: Size = 16  # of the inter attention
    code: Size = 32  # dimensions of the VAE's code
    hidden: Size = 128  # of its encoder and decoder
    prior_scale: Finite = 1.0  # r: the prior's mean is r · λ
    generative_weight: NotNegative = 0.1  # 0: no VAE
    divergence_weight: NotNegative = 0.1  # of the KL term beside the reconstruction
    foreground_weight: NotNegative = 0.5  # of λ's cross-entropy with the annotated foreground

    def check(self):
        super().check()
        require_divides(self, "width", "heads")
        require(
            self.width >= 4,
            f"width: {self.width}",
            "Choose at least 4: the gates use a quarter of the width.",
        )


class IntraAttention(nn.Module):
    """λ a step and a gate a channel: (B, T, C) → features · (1 + λ · gate) and logits of λ (B, T, 1)."""

    def __init__(self, width: int):
        super().__init__()
        self.steps = TemporalConv(width, 1)
        self.channels = nn.Sequential(nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, width))

    def forward(self, x: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
        logits = self.steps(x, keep)
        mean = (
            x.mean(1, keepdim=True)
            if keep is None
            else (x * keep).sum(1, keepdim=True) / keep.sum(1, keepdim=True).clamp(min=1)
        )
        return x * (1 + logits.sigmoid() * self.channels(mean).sigmoid()), logits


class InterAttention(nn.Module):
    """Points of all levels (B, P, C) read what latents have read from all of them; residual, (B, P, C)."""

    def __init__(self, width: int, heads: int, latents: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.context, self.out = GlobalContextBlock(width, heads, latents), nn.Linear(width, width)

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        return masked(x + self.out(self.context(self.norm(x), keep)), keep)


class AttentionVAE(nn.Module):
    """Conditional VAE of single steps: q(z | x, λ), p(x | z, λ), prior N(r λ, 1). Not used at inference."""

    def __init__(self, width: int, code: int, hidden: int, prior_scale: float):
        super().__init__()
        self.code, self.prior_scale = code, prior_scale
        net = lambda inputs, outputs: nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )
        self.encoder, self.decoder = net(width + 1, 2 * code), net(code + 1, width)

    def generative_loss(self, x: Tensor, attention: Tensor, divergence_weight: float) -> Tensor:
        """Reconstruction and divergence of steps (N, C) given λ (N, 1): teaches the VAE."""
        mean, log_variance = self.encoder(torch.cat([x, attention], 1)).chunk(2, -1)
        log_variance = log_variance.clamp(-8, 8)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        reconstruction = (self.decoder(torch.cat([z, attention], 1)) - x).square().mean()
        return reconstruction + divergence_weight * normal_divergence(
            mean, log_variance, self.prior_scale * attention
        )

    def attention_loss(self, x: Tensor, attention: Tensor) -> Tensor:
        """Error of what the fixed decoder makes of λ alone, through the prior's mean: teaches λ."""
        frozen = {name: parameter.detach() for name, parameter in self.decoder.named_parameters()}
        z = (self.prior_scale * attention).expand(-1, self.code)
        guess = torch.func.functional_call(self.decoder, frozen, (torch.cat([z, attention], 1),))
        return (guess - x).square().mean()


def normal_divergence(mean: Tensor, log_variance: Tensor, prior_mean: Tensor) -> Tensor:
    """KL(N(mean, variance) ‖ N(prior_mean, 1)), averaged over all entries."""
    return 0.5 * (log_variance.exp() + (mean - prior_mean).square() - 1 - log_variance).mean()


@register(
    "gaf",
    family="one_stage",
    paper=GAFConfig(hidden=512, code=128, post=PUBLISHED_POST),
    compact=GAFConfig(**LIGHT),
)
class GAF(AFSD):
    """forward: as AFSD, then logits of λ (B, T, 1) and the embedded features (B, T, C)."""

    config: GAFConfig

    def build_pyramid(self) -> None:
        super().build_pyramid()
        c = self.config
        if c.intra:
            self.intra = IntraAttention(c.width)
            if c.generative_weight:
                self.vae = AttentionVAE(c.width, c.code, c.hidden, c.prior_scale)
        if c.inter:
            self.inter = InterAttention(c.width, c.heads, c.latents)

    def network(self, x: Tensor, keep: Tensor | None) -> tuple[Tensor, ...]:
        embedded = self.embed(x, keep)
        x, attention = self.intra(embedded, keep) if self.config.intra else (embedded, embedded[..., :1])
        levels, keeps = self.pyramid(x, keep)
        if self.config.inter:
            joined, joined_keep, sizes = join_levels(levels, keeps)
            levels = list(self.inter(joined, joined_keep).split(sizes, 1))
        return *self.heads_on(x, keep, levels, keeps), attention, embedded

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> dict[str, Tensor]:
        losses = super().loss(outputs, batch)
        c, (logits, embedded) = self.config, outputs[-2:]
        if not c.intra:
            return losses
        at, valid = self.steps_of(batch.mask)
        inside = torch.stack([cell_instances(at, segments) >= 0 for segments in batch.segments])
        foreground = F.binary_cross_entropy_with_logits(logits[..., 0][valid], inside[valid].float())
        losses["total"] = losses["total"] + c.foreground_weight * foreground
        losses["foreground"] = foreground.detach()
        if c.generative_weight:
            x, attention = embedded[valid].detach(), logits[valid].sigmoid()
            generative = self.vae.generative_loss(
                x, attention.detach(), c.divergence_weight
            ) + self.vae.attention_loss(x, attention)
            losses["total"] = losses["total"] + c.generative_weight * generative
            losses["generative"] = generative.detach()
        return losses
