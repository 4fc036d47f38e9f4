"""STALE: every step is classified by its likeness to class texts, and has a mask of the instance it belongs to; both at once.

Recordings are cut into overlapping windows. One branch decides which steps are foreground (a transformer with one query), lets the class
texts attend to those steps, and scores steps by cosine; the other gives each step a mask over the window. They are kept consistent.

Source: Nag et al., Zero-Shot Temporal Action Detection via Vision-Language Prompting, ECCV 2022. Left open there or done otherwise:
attention is masked softly (its weights are multiplied by the foreground and normalised again); of neighbouring windows a step takes the
one whose middle is nearest; a recording's classes are learned for each window; where features do not have the texts' width, a linear layer
leads there. The compact preset has two convolutions before the attention, learns the cosine's scale, and its masks are relative: a step's
mask counts from the step, which need not know where in the window it is, and has a term for every pair of steps, the product of their
embeddings (hapt's held-out people at 30 % of the recordings: 57.0 avg mAP with neither, 86.9 with both and the score used here).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.data.batches import Batch
from tal_lib.models.parts.attention import attend
from tal_lib.models.parts.blocks import ConvNormReLU
from tal_lib.models.parts.candidates import Candidates, PostProcess
from tal_lib.models.parts.conv import TemporalConv, masked, to_keep
from tal_lib.models.parts.dense import cell_instances, group_runs, instance_labels
from tal_lib.models.parts.detector import Detector, DetectorConfig
from tal_lib.models.parts.language import LanguageConfig, ReadsNames, TextSimilarity
from tal_lib.models.parts.proposals import balanced_bce, cut, window_starts
from tal_lib.models.parts.registry import register

TENTHS = tuple(i / 10 for i in range(10))


@dataclass(frozen=True, kw_only=True)
class StaleConfig(DetectorConfig, LanguageConfig):
    """Published values by default; loss weights of the 75/25 split."""

    window: int = 100  # steps
    overlap: int = 0  # of neighbouring windows, steps
    width: int = 512
    embedding_layers: int = 0  # k3 convolutions before the attention
    heads: int = 4
    query_layers: int = 2  # of the transformer that finds the foreground
    mask_width: int = 256
    relative_masks: bool = (
        False  # masks count from their step, with a product of embeddings for every pair of steps
    )
    dropout: float = 0.2
    text_dropout: float = 0.3
    scale: float = 100.0  # of the cosine
    learn_scale: bool = False
    gamma: float = 2.0  # of the focal losses
    step_weight: float = 0.4
    recording_weight: float = 0.3
    mask_weight: float = 1.0
    foreground_weight: float = 0.1
    consistency_weight: float = 1.0
    bce_share: float = 0.4  # of the mask loss; the rest is dice
    class_thresholds: tuple[float, ...] = TENTHS
    mask_thresholds: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8)


class Attention(nn.Module):
    """Multi-head attention of queries (B, Q, C) on steps (B, T, C), each with a weight in [0, 1] (B, T, 1), then add and norm."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm, self.drop = nn.LayerNorm(width), nn.Dropout(dropout)

    def attend(self, queries: Tensor, steps: Tensor, weights: Tensor | None) -> Tensor:
        """What the queries read, without the residual."""
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # noqa: E731  (B, heads, ·, d)
        # a weight multiplies the attention before it is normalised: its logarithm is added
        bias = None if weights is None else weights.clamp(min=1e-6).log().transpose(1, 2).unsqueeze(1)
        read = attend(split(self.query(queries)), split(self.key(steps)), split(self.value(steps)), bias)
        return self.drop(self.out(read.transpose(1, 2).flatten(2)))

    def forward(self, queries: Tensor, steps: Tensor, weights: Tensor | None) -> Tensor:
        return self.norm(queries + self.attend(queries, steps, weights))


class QueryLayer(nn.Module):
    """The query reads the steps, then an MLP; post-norm."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, query: Tensor, steps: Tensor, keep: Tensor | None) -> Tensor:
        query = self.attention(query, steps, keep)
        return self.norm(query + self.mlp(query))


def from_relative(rows: Tensor) -> Tensor:
    """Masks (N, T, 2T − 1) that count from their step → (N, T, T): entry j of step i is its entry j − i + T − 1."""
    steps = rows.shape[1]
    at = torch.arange(steps, device=rows.device)
    return rows.gather(2, (at[None] - at[:, None] + steps - 1).expand(rows.shape[0], -1, -1))


def focal_cross_entropy(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """(1 − p)^γ · −log p, p the probability of the target class; logits (..., K), targets (..., K) that sum to one → (...)."""
    log_p = logits.log_softmax(-1)
    return -(targets * (1 - log_p.exp()) ** gamma * log_p).sum(-1)


def dice(p: Tensor, targets: Tensor) -> Tensor:
    """1 − (2 Σ p t + 1) / (Σ p² + Σ t² + 1) over the last axis. Source: Milletari et al., V-Net (3DV 2016), smoothed by one."""
    return 1 - (2 * (p * targets).sum(-1) + 1) / (p.square().sum(-1) + targets.square().sum(-1) + 1)


def pooled(x: Tensor, weights: Tensor) -> Tensor:
    """Mean of x (N, T, C) over steps with weights (N, T)."""
    return (x * weights[..., None]).sum(1) / weights.sum(1, keepdim=True).clamp(min=1e-6)


def middle_windows(steps: int, windows: int, stride: int, window: int, device=None) -> Tensor:
    """For every step the window whose middle is nearest: (steps,) indices."""
    at = torch.arange(steps, device=device)
    return ((at - (window - 1) / 2) / stride).round().long().clamp(0, windows - 1)


@register(
    "stale",
    paper=StaleConfig(text="clip", post=PostProcess(nms_sigma=0.6, voting_tiou=0.0)),
    compact=StaleConfig(
        window=128,
        overlap=64,
        width=128,
        mask_width=128,
        embedding_layers=2,
        relative_masks=True,
        scale=20.0,
        learn_scale=True,
        post=PostProcess(nms_sigma=0.6),
    ),
    paper_50=StaleConfig(
        text="clip",
        step_weight=0.1,
        recording_weight=1.0,
        consistency_weight=0.1,
        post=PostProcess(nms_sigma=0.6, voting_tiou=0.0),
    ),
)
class STALE(ReadsNames, Detector):
    """forward: of W windows of T steps a recording, class logits (B · W, T, K + 1; background last), foreground logits (B · W, T), mask
    logits (B · W, T, T; a row a step) and embedded features (B · W, T, C).
    """

    config: StaleConfig

    def __init__(self, config: StaleConfig, input_dim: int, num_classes: int):
        super().__init__(config, input_dim, num_classes)
        c = config
        if c.embedding_layers:
            self.embedding = nn.ModuleList(
                ConvNormReLU(input_dim if i == 0 else c.width, c.width) for i in range(c.embedding_layers)
            )
        else:
            self.embedding = nn.ModuleList(
                [TemporalConv(input_dim, c.width, 1)] if input_dim != c.width else []
            )
        self.snippet = Attention(c.width, c.heads, c.dropout)
        self.query = nn.Parameter(torch.randn(1, 1, c.width) * c.width**-0.5)
        self.query_layers = nn.ModuleList(
            QueryLayer(c.width, c.heads, c.dropout) for _ in range(c.query_layers)
        )
        self.query_out = nn.Linear(c.width, c.width)
        dim = self.begin_text()
        self.to_text = nn.Linear(c.width, dim) if dim != c.width else nn.Identity()
        self.background = nn.Parameter(torch.randn(1, dim) * dim**-0.5)
        self.adapter = Attention(dim, c.heads, c.text_dropout)
        self.adapter_scale = nn.Parameter(torch.full((dim,), 0.1))
        self.similarity = TextSimilarity(c.scale, learned=c.learn_scale)
        outputs = 2 * c.window - 1 if c.relative_masks else c.window
        self.mask_conv, self.mask_out = (
            TemporalConv(c.width, c.mask_width),
            TemporalConv(c.mask_width, outputs, 1),
        )
        if c.relative_masks:
            self.mask_pair = nn.Linear(c.width, 2 * c.mask_width)

    def starts(self, steps: int, device) -> Tensor:
        return window_starts(steps, self.config.window, self.config.overlap, device)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        x, keep = features.transpose(1, 2), to_keep(mask, features)
        for layer in self.embedding:
            x = masked(layer(x, keep), keep)
        starts = self.starts(x.shape[1], x.device)
        inside = x.new_ones(*x.shape[:2], 1) if keep is None else keep
        shape = (self.config.window, self.config.overlap)
        return self.windows(cut(masked(x, keep), starts, *shape), cut(inside, starts, *shape))

    def windows(self, x: Tensor, keep: Tensor) -> tuple[Tensor, ...]:
        """Embedded windows (N, T, C) and their masks (N, T, 1) → the outputs."""
        x = masked(self.snippet(x, x, keep), keep)
        query = self.query.expand(x.shape[0], -1, -1)
        for layer in self.query_layers:
            query = layer(query, x, keep)
        foreground = (self.query_out(query) @ x.transpose(1, 2))[:, 0] * x.shape[-1] ** -0.5  # (N, T)
        visual = self.to_text(x)
        texts = torch.cat([self.text, self.background]).expand(x.shape[0], -1, -1)
        read = self.adapter.norm(self.adapter.attend(texts, visual, foreground.sigmoid()[..., None] * keep))
        logits = self.similarity(visual, texts + self.adapter_scale * read)
        rows = self.mask_out(F.relu(self.mask_conv(x, keep)))
        if self.config.relative_masks:
            this, other = self.mask_pair(x).chunk(2, -1)
            rows = from_relative(rows) + this @ other.transpose(1, 2) * this.shape[-1] ** -0.5
        return logits, foreground, rows, x

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> dict[str, Tensor]:
        logits, foreground, masks, x = outputs
        c = self.config
        valid, instances, labels = self.window_targets(batch)
        inside = instances >= 0
        losses = {
            "step": self.step_loss(logits, labels, valid),
            "recording": self.recording_loss(logits, foreground, labels, valid),
            "mask": mask_loss(masks, instances, valid, c.bce_share),
            "foreground": F.binary_cross_entropy_with_logits(foreground[valid], inside[valid].float()),
            "consistency": consistency_loss(x, logits, masks, valid),
        }
        total = sum(getattr(c, f"{name}_weight") * value for name, value in losses.items())
        return {"total": total} | {name: value.detach() for name, value in losses.items()}  # pyright: ignore[reportReturnType]

    def window_targets(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Of every window's steps (N, T): whether valid, the instance (−1 for none), the class (K for none)."""
        steps = batch.mask.shape[1]
        at = torch.arange(steps, device=batch.mask.device, dtype=torch.float32)
        instances = [cell_instances(at, segments) for segments in batch.segments]
        labels = [instance_labels(one, own, self.num_classes) for one, own in zip(instances, batch.labels)]
        table = torch.stack(
            [batch.mask, torch.stack(instances) + 1, torch.stack(labels)], -1
        ).float()  # zero beyond the end
        windows = cut(table, self.starts(steps, table.device), self.config.window, self.config.overlap).long()
        return windows[..., 0] > 0, windows[..., 1] - 1, windows[..., 2]

    def step_loss(self, logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        targets = F.one_hot(labels, self.num_classes + 1).to(logits)
        return focal_cross_entropy(logits, targets, self.config.gamma)[valid].mean()

    def recording_loss(self, logits: Tensor, foreground: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """Classes present in a window, each with the same share, against the foreground's mean logits."""
        present = (F.one_hot(labels, self.num_classes + 1) * valid[..., None]).amax(1)[:, :-1].to(logits)
        some = present.sum(1) > 0
        if not some.any():
            return logits.sum() * 0
        mean = pooled(logits[..., :-1], foreground.sigmoid() * valid)[some]
        return focal_cross_entropy(
            mean, present[some] / present[some].sum(1, keepdim=True), self.config.gamma
        ).mean()

    def candidates(self, outputs: tuple[Tensor, ...], mask: Tensor) -> list[Candidates]:
        logits, _, masks, _ = outputs
        return self.decode(logits.softmax(-1)[..., :-1], masks.sigmoid(), mask)

    def combined_candidates(self, members, outputs, weights, mask: Tensor) -> list[Candidates]:
        mean = lambda parts: sum(weight * part for part, weight in zip(parts, weights))  # noqa: E731
        return self.decode(
            mean(one[0].softmax(-1)[..., :-1] for one in outputs),  # pyright: ignore[reportArgumentType]
            mean(one[2].sigmoid() for one in outputs),  # pyright: ignore[reportArgumentType]
            mask,
        )

    def decode(self, probabilities: Tensor, masks: Tensor, mask: Tensor) -> list[Candidates]:
        """Class probabilities (B · W, T, K) and masks (B · W, T, T) of windows → candidates.

        For every class and class threshold, runs of steps above it; the best step of each gives its mask; for every mask threshold the
        run of mask around that step is a segment. Score: the step's class probability times the segment's agreement with the mask.
        """
        c, windows = self.config, len(probabilities) // len(mask)
        found = []
        for index, steps in enumerate(mask.sum(1).tolist()):
            count = len(self.starts(steps, mask.device))
            at = torch.arange(steps, device=mask.device)
            own = middle_windows(steps, count, c.window - c.overlap, c.window, mask.device)
            origin = own * (c.window - c.overlap)
            scores = probabilities[index * windows + own, at - origin]  # (steps, K)
            rows = masks[index * windows + own, at - origin]  # (steps, window), from step `origin` on
            first, last, _, label = group_runs(scores, c.class_thresholds)
            best = best_step(scores, first, last, label)
            best, label = torch.stack([best, label]).unique(dim=1)
            segments, agreement = mask_runs(
                rows[best], (at - origin)[best], (steps - origin)[best], c.mask_thresholds
            )
            times = len(c.mask_thresholds)
            found.append(
                Candidates(
                    segments + origin[best].repeat(times)[:, None],
                    scores[best, label].repeat(times) * agreement,
                    label.repeat(times),
                )
            )
        return found


def mask_loss(masks: Tensor, instances: Tensor, valid: Tensor, bce_share: float) -> Tensor:
    """Balanced cross-entropy and dice of masks (N, T, T) against "step j is of step i's instance"; dice on the steps that have one."""
    inside = (instances >= 0) & valid
    targets = (instances[:, :, None] == instances[:, None]) & inside[:, :, None] & inside[:, None]
    both = valid[:, :, None] & valid[:, None]
    bce = balanced_bce(masks, targets, both)
    if not inside.any():
        return bce_share * bce
    p = (masks.sigmoid() * valid[:, None])[inside]
    return bce_share * bce + (1 - bce_share) * dice(p, targets[inside].to(p)).mean()


def consistency_loss(x: Tensor, logits: Tensor, masks: Tensor, valid: Tensor) -> Tensor:
    """1 − cosine of features (N, T, C) pooled where the classes see no background, and where the masks say that a step is of itself."""
    by_class = (1 - logits.softmax(-1)[..., -1]) * valid
    by_mask = masks.sigmoid().diagonal(dim1=1, dim2=2) * valid
    return (1 - F.cosine_similarity(pooled(x, by_class), pooled(x, by_mask), dim=-1)).mean()


def best_step(scores: Tensor, first: Tensor, last: Tensor, label: Tensor) -> Tensor:
    """The step of the highest score (T, K) of its class in each run (R,) from `first` to `last`, inclusive."""
    at = torch.arange(len(scores), device=scores.device)
    inside = (at >= first[:, None]) & (at <= last[:, None])
    return torch.where(inside, scores.T[label], -1).argmax(1)


def mask_runs(rows: Tensor, at: Tensor, end: Tensor, thresholds: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """The runs of masks (R, T) around steps `at` (R,) that stay above each threshold and before `end` (R,).

    Returns:
        segments (thresholds · R, 2) in steps of the window; and how well each agrees with its mask, as the tIoU of a soft set: mask inside
        over length plus mask outside. 0 where the step itself is not above.
    """
    position = torch.arange(rows.shape[1], device=rows.device)
    segments, agreement = [], []
    for threshold in thresholds:
        out = (rows <= threshold) | (position >= end[:, None])
        first = (
            torch.where(out & (position <= at[:, None]), position, -1).amax(1) + 1
        )  # after the last step outside before it
        last = torch.where(out & (position >= at[:, None]), position, rows.shape[1]).amin(1) - 1
        inside = (position >= first[:, None]) & (position <= last[:, None])
        segments.append(torch.stack([first - 0.5, last + 0.5], 1))
        within = (rows * inside).sum(1)
        agreement.append(
            within / (inside.sum(1) + (rows * (position < end[:, None])).sum(1) - within).clamp(min=1e-6)
        )
    return torch.cat(segments).to(rows.dtype), torch.cat(agreement)
