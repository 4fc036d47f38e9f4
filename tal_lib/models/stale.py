"""STALE: each step is classified by its similarity to class texts, and predicts a mask of its instance.

Recordings are cut into overlapping windows. One branch decides which steps are foreground (a transformer with
one query), lets the class texts attend to these steps, and scores steps by cosine. The other branch gives
each step a mask over the window. A loss keeps the two consistent.

Source: Nag et al., Zero-Shot Temporal Action Detection via Vision-Language Prompting, ECCV 2022.

The preset `paper` has the network, losses and optimizer of the authors' code (sauradip/STALE) on a window
without padding: `docs/fidelity.md` compares them, with the reasons. Kept different on purpose: the text
encoder is frozen and its vectors have unit length; all instances of a recording teach at full length, not the
last one alone; long recordings are cut into windows, not resized to one; decoding reads no file of another
classifier's labels, and its soft-NMS never raises a score. Where windows overlap, a step belongs to the
window whose middle is nearest. A linear layer maps features to the width of the texts if they differ.

The preset `compact` is our own form ("soft"). A transformer of queries only finds the foreground; the texts
attend to all steps, weighted by the foreground; the classes of a window are learned from the foreground's
mean logits; two convolutions precede the attention; the scale of the cosine is learned; masks are relative
(a step's mask counts from the step, which need not know its place in the window); and the mask has a term
for every pair of steps, the product of their embeddings. On held-out people of hapt with 30 % of the
recordings, both kinds of mask terms and the score used here raise 57.0 avg mAP to 86.9.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tal_lib.data.batches import Batch
from tal_lib.models.parts.blocks import ConvNormReLU
from tal_lib.models.parts.candidates import Candidates, PostProcess
from tal_lib.models.parts.conv import TemporalConv, masked, to_keep
from tal_lib.models.parts.dense import cell_instances, group_runs, instance_labels
from tal_lib.models.parts.detector import Detector, DetectorConfig
from tal_lib.models.parts.foreground import Attention, ForegroundTransformer, QueryLayer
from tal_lib.models.parts.instance_masks import (
    best_step,
    consistency_loss,
    focal_cross_entropy,
    focal_of_mean,
    from_relative,
    mask_loss,
    mask_runs,
    middle_windows,
    pooled,
    released_consistency_loss,
    released_mask_loss,
)
from tal_lib.models.parts.language import LanguageConfig, ReadsNames, TextSimilarity
from tal_lib.models.parts.proposals import cut, window_starts
from tal_lib.models.parts.registry import register
from tal_lib.validation import (
    BelowOne,
    NotNegative,
    Positive,
    Probability,
    Size,
    SizeOrZero,
    require,
    require_divides,
)

TENTHS = tuple(i / 10 for i in range(10))


@dataclass(frozen=True, kw_only=True)
class StaleConfig(DetectorConfig, LanguageConfig):
    """Published values by default; loss weights of the 75/25 split."""

    # network and losses: released, as in the authors' code; soft, ours
    form: Literal["released", "soft"] = "released"

    window: Size = 100  # steps
    overlap: SizeOrZero = 0  # of neighbouring windows, steps
    width: Size = 512  # channels of the network
    embedding_layers: SizeOrZero = 0  # k3 convolutions before the attention
    heads: Size = 4  # of the attention
    query_layers: SizeOrZero = (
        2  # of the transformer that finds the foreground; released: also of its encoder
    )
    mask_width: Size = 256  # channels of the mask branch
    # masks count from their step, with a product of embeddings for every pair of steps
    relative_masks: bool = False
    dropout: BelowOne = 0.2  # of the attention over steps and of the query layers
    text_dropout: BelowOne = 0.3  # of the attention of texts to steps
    scale: Positive = 100.0  # of the cosine
    learn_scale: bool = False  # whether the scale is learned
    gamma: NotNegative = 2.0  # of the focal losses
    step_weight: NotNegative = 0.36  # 0.4 × 0.9
    recording_weight: NotNegative = 0.4  # of the class loss of a recording
    mask_weight: NotNegative = 0.3  # of the mask loss
    foreground_weight: NotNegative = 0.1  # of the foreground loss
    consistency_weight: NotNegative = 1.0  # of the consistency of the branches
    bce_share: Probability = 0.4  # of the mask loss; the rest is dice
    class_thresholds: tuple[Probability, ...] = TENTHS  # of class scores, in decoding
    mask_thresholds: tuple[Probability, ...] = (0.0, 0.2, 0.4, 0.6, 0.8)  # of masks, in decoding

    def check(self):
        super().check()
        require(
            self.overlap < self.window,
            f"window={self.window}, overlap={self.overlap}",
            "Keep overlap < window.",
        )
        require_divides(self, "width", "heads")
        released = self.form == "released"
        require(
            not (released and (self.relative_masks or self.width % 4)),
            f"form=released, relative_masks={self.relative_masks}, width={self.width}",
            "The released form has absolute masks and a width that 4 divides; form=soft has the others.",
        )
        for name in ("class_thresholds", "mask_thresholds"):
            require(len(getattr(self, name)) > 0, f"{name}: the list is empty", "Give at least one.")


# their soft-NMS has the weight exp(−10 · tIoU²); dividing it by 0.6, as they do, would raise scores
_POST = PostProcess(nms_sigma=0.1, voting_tiou=0.0, max_detections=100, multiclass=False)


@register(
    "stale",
    family="language",
    paper=StaleConfig(text="clip", post=_POST),
    compact=StaleConfig(
        form="soft",
        step_weight=0.4,
        recording_weight=0.3,
        mask_weight=1.0,
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
        step_weight=0.09,  # 0.1 × 0.9
        recording_weight=0.1,
        mask_weight=1.0,
        consistency_weight=0.1,
        post=_POST,
    ),
)
class STALE(ReadsNames, Detector):
    """forward returns, for W windows of T steps per recording:

    class logits (B · W, T, K + 1; background last), foreground logits (B · W, T), mask logits (B · W, T, T;
    one row per step), embedded features (B · W, T, C), and, in the released form, class logits of the window
    (B · W, K).
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
        released = {"wide": True, "weights_dropout": 0.1} if c.form == "released" else {}
        self.snippet = Attention(c.width, c.heads, c.dropout, **released)
        if c.form == "released":
            self.foreground = ForegroundTransformer(c.width, layers=c.query_layers)
        else:
            self.query = nn.Parameter(torch.randn(1, 1, c.width) * c.width**-0.5)
            self.query_layers = nn.ModuleList(
                QueryLayer(c.width, c.heads, c.dropout) for _ in range(c.query_layers)
            )
            self.query_out = nn.Linear(c.width, c.width)
        dim = self.begin_text()
        self.to_text = nn.Linear(c.width, dim) if dim != c.width else nn.Identity()
        self.background = nn.Parameter(
            torch.rand(1, dim) if c.form == "released" else torch.randn(1, dim) * dim**-0.5
        )
        # heads that share the channels of a text must divide them
        heads = c.heads if released else math.gcd(c.heads, dim)
        self.adapter = Attention(dim, heads, c.text_dropout, **released)
        if c.form == "soft":
            self.adapter_scale = nn.Parameter(torch.full((dim,), 0.1))
        self.similarity = TextSimilarity(c.scale, learned=c.learn_scale)
        outputs = 2 * c.window - 1 if c.relative_masks else c.window
        self.mask_conv, self.mask_out = (
            TemporalConv(c.width, c.mask_width),
            TemporalConv(c.mask_width, outputs, 1, bias=c.form == "soft"),
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
        if self.config.form == "released":
            return self.released_windows(x, keep)
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

    def released_windows(self, x: Tensor, keep: Tensor) -> tuple[Tensor, ...]:
        """The same as the authors' code: the classifier reads steps with an above-average mask."""
        given, x = x, masked(self.snippet(x, x, keep), keep)
        # their mask of a step is an output channel over the steps, so rows and columns exchange
        masks = self.mask_out(F.relu(self.mask_conv(x, keep))).transpose(1, 2)
        foreground = (x @ self.foreground(given, keep)[:, :, None])[..., 0]
        share = pooled(masks.sigmoid().transpose(1, 2), keep[..., 0])  # (N, T), mean of each step's mask
        inside = (share >= pooled(share[..., None], keep[..., 0])).to(x)[..., None] * keep
        visual = self.to_text(x * inside)
        texts = torch.cat([self.text, self.background]).expand(x.shape[0], -1, -1)
        texts = self.adapter(texts, visual, keep)
        visual = visual.clamp(min=1e-4)
        window = self.similarity(pooled(visual, keep[..., 0])[:, None], texts[:, :-1])[:, 0]
        return self.similarity(visual, texts), foreground, masks, x, window

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> dict[str, Tensor]:
        logits, foreground, masks, x, *window = outputs
        c = self.config
        valid, instances, labels = self.window_targets(batch)
        inside = instances >= 0
        present = lambda: F.binary_cross_entropy_with_logits(foreground[valid], inside[valid].float())
        if c.form == "released":
            losses = {
                "step": focal_of_mean(logits[valid], labels[valid]),
                "recording": self.released_recording_loss(window[0], labels, valid),
                "mask": released_mask_loss(masks, instances, valid, c.bce_share),
                "foreground": present(),
                "consistency": released_consistency_loss(x, logits, masks, valid),
            }
        else:
            losses = {
                "step": self.step_loss(logits, labels, valid),
                "recording": self.recording_loss(logits, foreground, labels, valid),
                "mask": mask_loss(masks, instances, valid, c.bce_share),
                "foreground": present(),
                "consistency": consistency_loss(x, logits, masks, valid),
            }
        total = sum(getattr(c, f"{name}_weight") * value for name, value in losses.items())
        return {"total": total} | {name: value.detach() for name, value in losses.items()}  # pyright: ignore[reportReturnType]

    def window_targets(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Targets of the steps (N, T) of every window: validity, instance (−1 for none), class (K for
        none).
        """
        steps = batch.mask.shape[1]
        at = torch.arange(steps, device=batch.mask.device, dtype=torch.float32)
        instances = [cell_instances(at, segments) for segments in batch.segments]
        labels = [
            instance_labels(recording_instances, recording_labels, self.num_classes)
            for recording_instances, recording_labels in zip(instances, batch.labels)
        ]
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

    def released_recording_loss(self, window: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """The first class present in a window against its logits (N, K); windows without one do not count."""
        first = torch.where(valid, labels, self.num_classes).amin(1)
        some = first < self.num_classes
        return focal_of_mean(window[some], first[some]) if some.any() else window.sum() * 0

    def candidates(self, outputs: tuple[Tensor, ...], mask: Tensor) -> list[Candidates]:
        logits, _, masks, *_ = outputs
        return self.decode(logits.softmax(-1)[..., :-1], masks.sigmoid(), mask)

    def combined_candidates(self, members, outputs, weights, mask: Tensor) -> list[Candidates]:
        mean = lambda parts: sum(weight * part for part, weight in zip(parts, weights))
        return self.decode(
            mean(member_outputs[0].softmax(-1)[..., :-1] for member_outputs in outputs),  # pyright: ignore[reportArgumentType]
            mean(member_outputs[2].sigmoid() for member_outputs in outputs),  # pyright: ignore[reportArgumentType]
            mask,
        )

    def decode(self, probabilities: Tensor, masks: Tensor, mask: Tensor) -> list[Candidates]:
        """Class probabilities (B · W, T, K) and masks (B · W, T, T) of windows → candidates.

        For every class and class threshold, the runs of steps above it are taken. The best step of each run
        gives its mask. For every mask threshold, the run of mask around that step is a segment. Its score is
        the class probability of the step times the segment's agreement with the mask.
        """
        c, windows = self.config, len(probabilities) // len(mask)
        candidates = []
        for index, steps in enumerate(mask.sum(1).tolist()):
            count = len(self.starts(steps, mask.device))
            at = torch.arange(steps, device=mask.device)
            window_of_step = middle_windows(steps, count, c.window - c.overlap, c.window, mask.device)
            origin = window_of_step * (c.window - c.overlap)
            scores = probabilities[index * windows + window_of_step, at - origin]  # (steps, K)
            rows = masks[
                index * windows + window_of_step, at - origin
            ]  # (steps, window), from step `origin` on
            first, last, _, label = group_runs(scores, c.class_thresholds)
            best = best_step(scores, first, last, label)
            best, label = torch.stack([best, label]).unique(dim=1)
            segments, agreement = mask_runs(
                rows[best], (at - origin)[best], (steps - origin)[best], c.mask_thresholds
            )
            times = len(c.mask_thresholds)
            candidates.append(
                Candidates(
                    segments + origin[best].repeat(times)[:, None],
                    scores[best, label].repeat(times) * agreement,
                    label.repeat(times),
                )
            )
        return candidates
