"""TadTR: a set of learned queries, deformable attention over time, one-to-one matching.

Source: Liu et al., End-to-End Temporal Action Detection with Transformer, IEEE TIP 2022. A recording is cut
into overlapping slices of fixed length. Each slice is a set-prediction problem; NMS merges the detections of
all slices.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from tal_lib.data.batches import Batch
from tal_lib.models.parts.blocks import MaskedGroupNorm
from tal_lib.models.parts.candidates import Candidates, PostProcess
from tal_lib.models.parts.conv import ceil_div, exporting, masked, to_keep
from tal_lib.models.parts.detector import Detector, DetectorConfig
from tal_lib.models.parts.losses import sigmoid_focal
from tal_lib.models.parts.registry import register
from tal_lib.models.parts.sampling import sample_linear
from tal_lib.segments import interval_iou
from tal_lib.validation import (
    BelowOne,
    NotNegative,
    OpenProbability,
    Positive,
    Probability,
    Size,
    SizeOrZero,
    require,
    require_divides,
)


@dataclass(frozen=True, kw_only=True)
class TadTRConfig(DetectorConfig):
    """THUMOS14 values by default."""

    width: Size = 256
    heads: Size = 8
    samples: Size = 4  # sampling points of a head
    feed_forward: Size = 1024
    encoder_layers: SizeOrZero = 4
    decoder_layers: Size = 4
    queries: Size = 40
    dropout: BelowOne = 0.1
    slice_steps: Size = 128
    train_overlap: BelowOne = 0.75  # of neighbouring slices
    test_overlap: BelowOne = 0.25
    keep: Probability = 0.75  # a segment cut by a slice's end is learned if this share of it remains
    roi_bins: Size = 16
    roi_scale: Positive = 1.5  # actionness looks at the segment widened by this
    prior: OpenProbability = 0.01
    cost_class: NotNegative = 6.0  # of matching
    cost_l1: NotNegative = 5.0
    cost_iou: NotNegative = 2.0
    class_weight: NotNegative = 2.0  # of the losses
    l1_weight: NotNegative = 5.0
    iou_weight: NotNegative = 2.0
    actionness_weight: NotNegative = 4.0

    def check(self):
        super().check()
        require_divides(self, "width", "heads")
        groups = norm_groups(self.width)
        require(
            groups > 0 and self.width % groups == 0 and self.width % 2 == 0,
            f"width: {self.width}",
            "Choose a multiple of 32, or a smaller multiple of 4.",
        )


def norm_groups(width: int) -> int:
    """Groups of the norm behind the input layer."""
    return min(32, width // 4)


class DeformableAttention(nn.Module):
    """Each query reads a few fractional positions around its reference; it predicts their offsets and
    weights.

    Source: section III-C; Zhu et al., Deformable DETR (ICLR 2021), equation 2, in one dimension.
    """

    def __init__(self, width: int, heads: int, samples: int):
        super().__init__()
        self.heads, self.samples = heads, samples
        self.offsets = nn.Linear(width, heads * samples)
        self.weights = nn.Linear(width, heads * samples)
        self.values, self.out = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.offsets.weight)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        with torch.no_grad():  # heads look left and right in turn, their samples ever further
            side = torch.tensor([1.0, -1.0]).repeat(heads)[:heads]
            self.offsets.bias.copy_((side[:, None] * torch.arange(1, samples + 1)).flatten())

    def forward(
        self, query: Tensor, memory: Tensor, centre: Tensor, width: Tensor | None, keep: Tensor | None
    ) -> Tensor:
        """Queries (S, Q, C) with reference centres (S, Q) and widths in steps, memory (S, L, C) → (S, Q, C).

        Offsets are in steps; with a width, in halves of it divided by the number of samples.
        """
        slices, queries, _ = query.shape
        values = (
            masked(self.values(memory), keep).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        )  # (S, H, L, d)
        offsets = self.offsets(query).unflatten(-1, (self.heads, self.samples))
        if width is not None:
            offsets = offsets / self.samples * width[..., None, None] * 0.5
        at = (centre[..., None, None] + offsets).transpose(1, 2)  # (S, H, Q, M)
        weights = self.weights(query).unflatten(-1, (self.heads, self.samples)).softmax(-1).transpose(1, 2)
        sampled = sample_linear(values, at.flatten(2)).unflatten(
            2, (queries, self.samples)
        )  # (S, H, Q, M, d)
        return self.out((sampled * weights.unsqueeze(-1)).sum(-2).transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Deformable self-attention, then a feed-forward layer; norms after the residuals."""

    def __init__(self, c: TadTRConfig):
        super().__init__()
        self.attention = DeformableAttention(c.width, c.heads, c.samples)
        self.grow, self.shrink = nn.Linear(c.width, c.feed_forward), nn.Linear(c.feed_forward, c.width)
        self.norm1, self.norm2, self.drop = (
            nn.LayerNorm(c.width),
            nn.LayerNorm(c.width),
            nn.Dropout(c.dropout),
        )

    def forward(self, x: Tensor, position: Tensor, centre: Tensor, keep: Tensor | None) -> Tensor:
        x = self.norm1(x + self.drop(self.attention(x + position, x, centre, None, keep)))
        return self.norm2(x + self.drop(self.shrink(self.drop(F.relu(self.grow(x))))))


class DecoderLayer(nn.Module):
    """Self-attention among the queries, deformable attention to the memory, feed-forward."""

    def __init__(self, c: TadTRConfig):
        super().__init__()
        self.heads = c.heads
        self.qk, self.v, self.mix = (
            nn.Linear(c.width, 2 * c.width),
            nn.Linear(c.width, c.width),
            nn.Linear(c.width, c.width),
        )
        self.attention = DeformableAttention(c.width, c.heads, c.samples)
        self.grow, self.shrink = nn.Linear(c.width, c.feed_forward), nn.Linear(c.feed_forward, c.width)
        self.norms, self.drop = nn.ModuleList(nn.LayerNorm(c.width) for _ in range(3)), nn.Dropout(c.dropout)

    def forward(
        self, x: Tensor, position: Tensor, memory: Tensor, centre: Tensor, width: Tensor, keep: Tensor | None
    ) -> Tensor:
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q, k = map(split, self.qk(x + position).chunk(2, -1))
        scores = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
        x = self.norms[0](
            x + self.drop(self.mix((scores.softmax(-1) @ split(self.v(x))).transpose(1, 2).flatten(2)))
        )
        x = self.norms[1](x + self.drop(self.attention(x + position, memory, centre, width, keep)))
        return self.norms[2](x + self.drop(self.shrink(self.drop(F.relu(self.grow(x))))))


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Logit, clamped away from the ends."""
    x = x.clamp(eps, 1 - eps)
    return torch.log(x / (1 - x))


def match(
    class_logits: Tensor, boxes: Tensor, labels: Tensor, targets: Tensor, c: TadTRConfig
) -> tuple[Tensor, Tensor]:
    """One-to-one assignment of least cost between predictions and annotations of a slice (Hungarian method).

    Args:
        class_logits: (Q, K); boxes: (Q, 2) centre and width in [0, 1]; labels: (N,); targets: (N, 2).

    Returns:
        indices of predictions and of annotations, min(Q, N) each.
    """
    p = class_logits.sigmoid()
    positive = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log()
    negative = 0.75 * p**2 * -(1 - p + 1e-8).log()
    cost = (
        c.cost_class * (positive - negative)[:, labels]
        + c.cost_l1 * torch.cdist(boxes, targets, p=1)
        - c.cost_iou * interval_iou(to_segments(boxes)[:, None], to_segments(targets)[None])
    )
    rows, columns = linear_sum_assignment(cost.detach().cpu().numpy())
    return torch.as_tensor(rows, device=boxes.device), torch.as_tensor(columns, device=boxes.device)


def to_segments(boxes: Tensor) -> Tensor:
    """Centre and width → start and end."""
    centre, width = boxes.unbind(-1)
    return torch.stack([centre - width / 2, centre + width / 2], -1)


@register(
    "tadtr",
    family="set_prediction",
    paper=TadTRConfig(post=PostProcess(nms="soft", voting_tiou=0.0)),
    compact=TadTRConfig(
        width=128,
        heads=4,
        feed_forward=256,
        encoder_layers=2,
        decoder_layers=3,
        queries=24,
        train_overlap=0.25,
        post=PostProcess(nms="soft", voting_tiou=0.0),
    ),
    paper_activitynet=TadTRConfig(
        slice_steps=192,
        queries=10,
        train_overlap=0.0,
        test_overlap=0.0,
        post=PostProcess(max_detections=100, nms="soft", voting_tiou=0.0),
    ),
)
class TadTR(Detector):
    """forward: features (B, D, T) → outputs of S slices per recording.

    Class logits (B, S, layers, Q, K), boxes (B, S, layers, Q, 2) and actionness (B, S, Q). Boxes are centre
    and width as fractions of the slice.
    """

    config: TadTRConfig

    def __init__(self, config: TadTRConfig, input_dim: int, num_classes: int):
        super().__init__(config, input_dim, num_classes)
        c = config
        self.reduce, self.norm = (
            nn.Linear(input_dim, c.width),
            MaskedGroupNorm(norm_groups(c.width), c.width),
        )
        self.encoder = nn.ModuleList(EncoderLayer(c) for _ in range(c.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(c) for _ in range(c.decoder_layers))
        self.query = nn.Parameter(torch.randn(c.queries, 2 * c.width))  # content and position
        self.reference = nn.Linear(c.width, 2)
        self.classify = nn.ModuleList(nn.Linear(c.width, num_classes) for _ in self.decoder)
        self.refine = nn.ModuleList(
            nn.Sequential(
                nn.Linear(c.width, c.width),
                nn.ReLU(),
                nn.Linear(c.width, c.width),
                nn.ReLU(),
                nn.Linear(c.width, 2),
            )
            for _ in self.decoder
        )
        for head, box in zip(self.classify, self.refine):
            nn.init.constant_(head.bias, -math.log((1 - c.prior) / c.prior))  # pyright: ignore[reportArgumentType]
            nn.init.zeros_(box[-1].weight)  # pyright: ignore[reportIndexIssue]
            nn.init.zeros_(box[-1].bias)  # pyright: ignore[reportIndexIssue]
        nn.init.constant_(self.refine[0][-1].bias[1:], -2.0)  # pyright: ignore[reportIndexIssue] # begin with short segments
        self.actionness = nn.Sequential(
            nn.Linear(c.roi_bins * c.width, c.width),
            nn.ReLU(),
            nn.Linear(c.width, c.width),
            nn.ReLU(),
            nn.Linear(c.width, 1),
        )
        step = torch.arange(c.slice_steps)[:, None]
        wave = step / 10_000 ** (torch.arange(0, c.width, 2) / c.width)
        self.register_buffer(
            "position", torch.stack([wave.sin(), wave.cos()], -1).flatten(1), persistent=False
        )

    def slices(self, steps: int) -> list[int]:
        """First step of each slice; training uses more overlap than inference."""
        count, stride = self.slicing(steps)
        return [stride * index for index in range(count)]

    def slicing(self, steps: int) -> tuple[int, int]:
        """How many slices there are, and the steps between them."""
        c = self.config
        stride = max(1, round(c.slice_steps * (1 - (c.train_overlap if self.training else c.test_overlap))))
        return 1 + max(0, ceil_div(steps - c.slice_steps, stride)), stride

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        c = self.config
        batch, _, steps = features.shape
        valid = features.new_ones(batch, steps, 1) if mask is None else to_keep(mask, features)
        count, stride = self.slicing(steps if exporting() else int(steps))
        cut = lambda x: (
            F.pad(x, (0, 0, 0, c.slice_steps))
            .unfold(1, c.slice_steps, stride)[:, :count]
            .transpose(2, 3)
            .flatten(0, 1)
        )
        keep = cut(valid)
        x = cut(self.reduce(features.transpose(1, 2)) * valid)
        x = masked(self.norm(x, keep), keep)
        centre = torch.arange(c.slice_steps, device=x.device, dtype=x.dtype).expand(x.shape[0], -1)
        for layer in self.encoder:
            x = layer(x, self.position, centre, keep)
        memory = masked(x, keep)

        content, position = (part.expand(x.shape[0], -1, -1) for part in self.query.chunk(2, -1))
        box = self.reference(position).sigmoid()
        classes, boxes = [], []
        for layer, head, refine in zip(self.decoder, self.classify, self.refine):
            middle, width = (box * c.slice_steps).unbind(-1)
            content = layer(content, position, memory, middle - 0.5, width, keep)
            box = (refine(content) + inverse_sigmoid(box)).sigmoid()
            classes.append(head(content))
            boxes.append(box)
            box = box.detach()
        quality = self.look_again(memory, boxes[-1].detach()).unflatten(0, (batch, -1))
        return (
            torch.stack(classes, 1).unflatten(0, (batch, -1)),
            torch.stack(boxes, 1).unflatten(0, (batch, -1)),
            quality,
        )

    def look_again(self, memory: Tensor, boxes: Tensor) -> Tensor:
        """Actionness regression: RoIAlign over the widened segment → how well it fits; logits (S, Q)."""
        c = self.config
        centre, width = (boxes * c.slice_steps).unbind(-1)
        bins = (torch.arange(c.roi_bins, device=boxes.device) + 0.5) / c.roi_bins - 0.5
        at = centre[..., None] + bins * width[..., None] * c.roi_scale - 0.5
        region = sample_linear(memory, at.flatten(1)).unflatten(1, at.shape[1:])  # (S, Q, bins, C)
        return self.actionness(region.flatten(2)).squeeze(-1)

    def slice_targets(
        self, start: int, valid_steps: int, segments: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Annotations of a slice: centre and width as fractions of it, and labels. Segments cut too short are
        left out."""
        end = min(self.config.slice_steps, valid_steps - start)
        inside = (segments + 0.5 - start).clamp(0, max(end, 0))  # step t covers [t, t + 1) of the slice
        length = inside[:, 1] - inside[:, 0]
        kept = (length > 0.25) & (length >= self.config.keep * (segments[:, 1] - segments[:, 0]))
        inside = inside[kept] / self.config.slice_steps
        return torch.stack([inside.mean(-1), inside[:, 1] - inside[:, 0]], -1), labels[kept]

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> dict[str, Tensor]:
        c = self.config
        logits, boxes, quality = outputs
        slices, layers = logits.shape[1], logits.shape[2]
        starts = self.starts_of(slices, batch.mask.shape[1])
        classes = torch.zeros_like(logits)
        valid = torch.zeros(logits.shape[:2], dtype=torch.bool, device=logits.device)
        chosen, wanted, fits, total = [], [], torch.zeros_like(quality), 0
        with torch.no_grad():
            for b, (steps, segments, labels) in enumerate(
                zip(batch.mask.sum(1).tolist(), batch.segments, batch.labels)
            ):
                for s, start in enumerate(starts):
                    if start >= steps:
                        continue
                    valid[b, s] = True
                    targets, names = self.slice_targets(start, steps, segments, labels)
                    total += len(targets)
                    if not len(targets):
                        continue
                    for layer in range(layers):
                        rows, columns = match(logits[b, s, layer], boxes[b, s, layer], names, targets, c)
                        classes[b, s, layer, rows, names[columns]] = 1
                        chosen += [(b, s, layer, row) for row in rows.tolist()]
                        wanted.append(targets[columns])
                    overlap = interval_iou(to_segments(boxes[b, s, -1])[:, None], to_segments(targets)[None])
                    fits[b, s] = overlap.max(1).values
        norm = max(1, total)
        matched = (
            boxes[tuple(torch.tensor(chosen, device=boxes.device).T)] if chosen else boxes.flatten(0, -2)[:0]
        )
        wanted = torch.cat(wanted) if wanted else matched
        classification = sigmoid_focal(logits, classes)[valid].sum() / norm
        distance = (matched - wanted).abs().sum() / norm
        overlap = (1 - interval_iou(to_segments(matched), to_segments(wanted))).sum() / norm
        actionness = (quality.sigmoid() - fits)[valid].abs().mean() if valid.any() else quality.sum() * 0
        total_loss = (
            c.class_weight * classification
            + c.l1_weight * distance
            + c.iou_weight * overlap
            + c.actionness_weight * actionness
        )
        return {
            "total": total_loss,
            "classification": classification.detach(),
            "l1": distance.detach(),
            "iou": overlap.detach(),
            "actionness": actionness.detach(),
        }

    def starts_of(self, slices: int, steps: int) -> list[int]:
        """The slices' first steps, by the overlap that their number tells."""
        mode = self.training
        for training in (mode, not mode):
            self.training = training
            starts = self.slices(steps)
            self.training = mode
            if len(starts) == slices:
                return starts
        raise AssertionError("outputs of another length")

    def candidates(self, outputs: tuple[Tensor, ...], mask: Tensor) -> list[Candidates]:
        logits, boxes, quality = outputs
        starts = torch.tensor(self.starts_of(logits.shape[1], mask.shape[1]), device=boxes.device)
        scores = logits[:, :, -1].sigmoid() * quality.sigmoid().unsqueeze(-1)  # (B, S, Q, K)
        segments = to_segments(boxes[:, :, -1]) * self.config.slice_steps + starts[:, None, None] - 0.5
        candidates = []
        for index, steps in enumerate(mask.sum(1).tolist()):
            here = scores[index] * (starts < steps)[:, None, None]
            best, at = here.flatten().topk(min(self.config.post.max_candidates, here.numel()))
            spans = segments[index].flatten(0, 1)[at // self.num_classes].clamp(-0.5, steps - 0.5)
            candidates.append(Candidates(spans, best, at % self.num_classes))
        return candidates
