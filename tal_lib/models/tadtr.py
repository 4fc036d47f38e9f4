"""TadTR: a set of learned queries, deformable attention over time, one-to-one matching.

Source: Liu et al., End-to-End Temporal Action Detection with Transformer, IEEE TIP 2022. A recording is cut
into overlapping slices of fixed length. Each slice is a set-prediction problem; NMS merges the detections of
all slices.

`paper` follows the authors' code (xlliu7/TadTR, THUMOS14): raw outputs, losses and gradients are equal.
`compact` is our own reduction; it differs where an option says so. Deviations kept in `paper` (reasons in
docs/fidelity.md): detections are clipped to the recording, and one that crosses two seams is listed once; a
training batch holds one random slice of a recording instead of fixed ones; annotations are placed by the
benchmark's time axis. There is no released code for ActivityNet: `paper_activitynet` is our choice.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.data.batches import Batch
from tal_lib.models.parts.blocks import MaskedGroupNorm
from tal_lib.models.parts.candidates import Candidates, PostProcess
from tal_lib.models.parts.conv import ceil_div, exporting, masked, to_keep
from tal_lib.models.parts.deformable import (
    DecoderLayer,
    DeformableAttention,
    EncoderLayer,
    SamplingStart,
    roi_align,
    sine_position,
    start_as_published,
)
from tal_lib.models.parts.detector import Detector, DetectorConfig
from tal_lib.models.parts.losses import sigmoid_focal
from tal_lib.models.parts.registry import register
from tal_lib.models.parts.sampling import sample_linear
from tal_lib.models.parts.set_matching import (
    best_overlap,
    inverse_sigmoid,
    match,
    merge_overlaps,
    to_segments,
)
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

    width: Size = 256  # channels of the transformer
    heads: Size = 8  # of the attention
    samples: Size = 4  # sampling points of a head
    feed_forward: Size = 1024  # hidden channels of a layer
    encoder_layers: SizeOrZero = 4  # of the transformer
    decoder_layers: Size = 4  # of the transformer
    queries: Size = 40  # learned queries of a slice: at most so many segments
    dropout: BelowOne = 0.1  # of the layers
    slice_steps: Size = 128  # steps of a slice
    train_overlap: BelowOne = 0.75  # of neighbouring slices
    test_overlap: BelowOne = 0.25  # the same, in detection
    keep: Probability = 0.75  # a segment cut by a slice's end is learned if this share of it remains
    roi_bins: Size = 16  # bins of a segment, for actionness
    roi_scale: Positive = 1.5  # actionness looks at the segment widened by this
    prior: OpenProbability = 0.01  # initial class probability
    cost_class: NotNegative = 6.0  # of matching
    cost_l1: NotNegative = 5.0  # of the distance, in matching
    cost_iou: NotNegative = 2.0  # of the overlap, in matching
    class_weight: NotNegative = 2.0  # of the losses
    l1_weight: NotNegative = 5.0  # of the distance, in the loss
    iou_weight: NotNegative = 2.0  # of the overlap, in the loss
    actionness_weight: NotNegative = 4.0  # of actionness, in the loss
    # The defaults are those of the published code.

    # the first decoder layer refers to a predicted centre, or to a predicted segment
    first_reference: Literal["centre", "segment"] = "centre"
    level_embedding: bool = True  # a learned vector beside the position, of the only level
    # waves of the position: over 2π in a slice, or of the step's number
    position: Literal["fraction", "steps"] = "fraction"
    sampling_start: SamplingStart = "cosine"  # where the heads look before training
    initial: Literal["xavier", "torch"] = "xavier"  # distribution of the initial weights
    attention_dropout: BelowOne = 0.1  # of the weights of the queries' self-attention
    # features of a segment: averages of bins, clipped to the slice; or one sample a bin, zero outside
    roi: Literal["averages", "samples"] = "averages"
    # steps behind the end of a recording: ordinary ones of zero features, or never seen
    padding: Literal["authors", "masked"] = "authors"
    # actionness learns the best tIoU with an annotation of the whole batch, or of its own slice
    actionness_target: Literal["batch", "slice"] = "batch"
    slice_candidates: SizeOrZero = 100  # best pairs of query and class that a slice keeps; 0: all
    # where NMS acts: on detections that reach into the overlap of two slices (hard), or on all (`post`)
    merge: Literal["overlaps", "all"] = "overlaps"
    overlap_tiou: Probability = 0.4  # of that hard NMS

    @property
    def costs(self) -> tuple[float, float, float]:
        """Weights of class, distance and overlap in the matching."""
        return self.cost_class, self.cost_l1, self.cost_iou

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


@register(
    "tadtr",
    family="set_prediction",
    paper=TadTRConfig(
        post=PostProcess(
            nms="none", score_threshold=0.0, min_segment_steps=0.0, min_score=0.0, max_detections=20_000
        )
    ),
    compact=TadTRConfig(
        width=128,
        heads=4,
        feed_forward=256,
        encoder_layers=2,
        decoder_layers=3,
        queries=24,
        train_overlap=0.25,
        first_reference="segment",
        level_embedding=False,
        position="steps",
        sampling_start="alternate",
        initial="torch",
        attention_dropout=0.0,
        roi="samples",
        padding="masked",
        actionness_target="slice",
        slice_candidates=0,
        merge="all",
        post=PostProcess(nms="soft", voting_tiou=0.0),
    ),
    paper_activitynet=TadTRConfig(
        slice_steps=192,
        queries=10,
        train_overlap=0.0,
        test_overlap=0.0,
        padding="masked",
        merge="all",
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
        attention = lambda: DeformableAttention(c.width, c.heads, c.samples, c.sampling_start)
        self.encoder = nn.ModuleList(
            EncoderLayer(c.width, c.feed_forward, c.dropout, attention) for _ in range(c.encoder_layers)
        )
        self.decoder = nn.ModuleList(
            DecoderLayer(c.width, c.feed_forward, c.dropout, c.attention_dropout, attention)
            for _ in range(c.decoder_layers)
        )
        self.query = nn.Parameter(torch.randn(c.queries, 2 * c.width))  # content and position
        self.reference = nn.Linear(c.width, 1 if c.first_reference == "centre" else 2)
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
        at = torch.arange(c.slice_steps)
        if c.position == "fraction":
            at = 2 * math.pi * (at + 1) / (c.slice_steps + 1e-6)
        self.position: Tensor
        self.register_buffer("position", sine_position(at, c.width), persistent=False)
        if c.level_embedding:
            self.level = nn.Parameter(torch.randn(c.width))
        if c.initial == "xavier":
            self.start_as_published()

    def start_as_published(self) -> None:
        """Initial weights as in the authors' code; the heads of all layers start equal."""
        start_as_published(self.encoder)
        start_as_published(self.decoder)
        for linear in (self.reference, self.reduce):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        for heads in (self.classify, self.refine):
            first = {
                key: value
                for key, value in heads[0].state_dict().items()
                if key not in ("4.weight", "4.bias")
            }
            for head in heads[1:]:
                head.load_state_dict(first, strict=False)

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
        keep = to_keep(mask, features)
        valid = features.new_ones(batch, steps, 1) if keep is None else keep
        count, stride = self.slicing(steps if exporting() else int(steps))
        cut = lambda x: (
            F.pad(x, (0, 0, 0, c.slice_steps))
            .unfold(1, c.slice_steps, stride)[:, :count]
            .transpose(2, 3)
            .flatten(0, 1)
        )
        if c.padding == "masked":
            keep = cut(valid)
            x = cut(self.reduce(features.transpose(1, 2)) * valid)
        else:
            keep, x = None, self.reduce(cut(features.transpose(1, 2) * valid))
        x = masked(self.norm(x, keep), keep)
        centre = torch.arange(c.slice_steps, device=x.device, dtype=x.dtype).expand(x.shape[0], -1)
        where = self.position + self.level if c.level_embedding else self.position
        for layer in self.encoder:
            x = layer(x, where, centre, keep)
        memory = masked(x, keep)

        content, position = (part.expand(x.shape[0], -1, -1) for part in self.query.chunk(2, -1))
        box = self.reference(position).sigmoid()
        classes, boxes = [], []
        for layer, head, refine in zip(self.decoder, self.classify, self.refine):
            # the first reference may be a centre alone: then the width comes from the layer only
            middle, width = box[..., 0] * c.slice_steps, box[..., 1:] * c.slice_steps
            width = width[..., 0] if width.shape[-1] else None
            content = layer(content, position, memory, middle - 0.5, width, keep)
            start = F.pad(inverse_sigmoid(box), (0, 2 - box.shape[-1]))
            box = (refine(content) + start).sigmoid()
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
        if c.roi == "averages":
            wide = torch.stack([boxes[..., 0], boxes[..., 1] * c.roi_scale], -1)
            segments = (to_segments(wide) * c.slice_steps).clamp(0, c.slice_steps)
            return self.actionness(roi_align(memory, segments, c.roi_bins).flatten(2)).squeeze(-1)
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
        chosen, wanted, fits, total, every = [], [], torch.zeros_like(quality), 0, []
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
                    every.append(targets)
                    if not len(targets):
                        continue
                    for layer in range(layers):
                        rows, columns = match(
                            logits[b, s, layer], boxes[b, s, layer], names, targets, c.costs
                        )
                        classes[b, s, layer, rows, names[columns]] = 1
                        chosen += [(b, s, layer, row) for row in rows.tolist()]
                        wanted.append(targets[columns])
                    fits[b, s] = best_overlap(boxes[b, s, -1], targets)
            if total and c.actionness_target == "batch":
                fits = best_overlap(boxes[:, :, -1], torch.cat(every))
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
            if self.config.slice_candidates:
                here = self.best_of_slices(scores[index], segments[index], starts, steps)
            else:
                table = (scores[index] * (starts < steps)[:, None, None]).flatten()
                best, at = table.topk(min(self.config.post.max_candidates, len(table)))
                here = Candidates(
                    segments[index].flatten(0, 1)[at // self.num_classes], best, at % self.num_classes
                )
            candidates.append(replace(here, segments=here.segments.clamp(-0.5, steps - 0.5)))
        return candidates

    def best_of_slices(self, scores: Tensor, segments: Tensor, starts: Tensor, steps: int) -> Candidates:
        """The best candidates of each slice of a recording, merged where slices overlap if so configured.

        Args:
            scores: (S, Q, K); segments: (S, Q, 2) in steps; starts: (S,) first steps; steps: of the
                recording.
        """
        c, count = self.config, int((starts < steps).sum())
        table = scores[:count].flatten(1)
        best, at = table.topk(min(c.slice_candidates, table.shape[1]), dim=1)
        spans = segments[:count].gather(1, (at // self.num_classes)[..., None].expand(-1, -1, 2))
        joined = Candidates(spans.flatten(0, 1), best.flatten(), (at % self.num_classes).flatten())
        if c.merge == "all" or count == 1:
            return joined
        first = starts[:count].tolist()  # a slice begins half a step before its first step's centre
        overlaps = [(after - 0.5, before + c.slice_steps - 0.5) for before, after in zip(first, first[1:])]
        return merge_overlaps(joined, overlaps, c.overlap_tiou)
