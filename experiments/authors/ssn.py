"""SSN beside yjxiong/action-detection: its heads, losses, gradients and suppression.

Their network reads images and trains end to end, so it is compared from the features of the snippets on: an
image network that returns its input stands in for theirs. Three comparisons:

- the two losses, on drawn scores of one complete and six incomplete proposals a recording;
- their pyramid, heads, losses and gradients of two recordings. The features are linear in time, so the means
  of their snippets and of our samples are the same;
- their scores and hard NMS, without a regression. Theirs regresses after the suppression, ours before it.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from experiments.authors import Row, importable, largest_difference
from experiments.authors.on_cpu import gradient_row
from tal_lib import models
from tal_lib.cost.macs import count_call
from tal_lib.models.parts.candidates import suppress
from tal_lib.models.parts.sampling import sample_segments
from tal_lib.models.ssn import BACKGROUND, COMPLETE, INCOMPLETE

FOLDER = "action-detection"
MODELS = ("ssn",)
CLASSES, RECORDINGS = 20, 8
HOW = "random scores of 1 complete and 6 incomplete proposals a recording, 8 recordings"


PYRAMID = (1, (1, 2), 1)  # of the paper and of their class
# in steps: one complete, six incomplete, one background, as they sample them
PROPOSALS = [[40, 80], [42, 50], [50, 60], [55, 62], [61, 70], [66, 78], [70, 79], [10, 30]]
ROLES = [COMPLETE] + [INCOMPLETE] * 6 + [BACKGROUND]
ANNOTATION, LABEL = (42.0, 79.0), 7
TOGETHER = 2  # recordings
NMS_PROPOSALS = 100  # with 20 classes as many pairs as they keep
LINEAR = "weights copied, from features of snippets that are linear in time; 2 recordings of 8 proposals"


@contextmanager
def their_modules(clone: Path) -> Iterator[tuple[ModuleType, ModuleType, ModuleType]]:
    """Their modules of the pyramid and losses, of the network, and of the suppression."""
    vision = {name: ModuleType(name) for name in ("torchvision", "torchvision.models")}
    with (
        importable(clone, "ops", "ssn_models", "transforms", stand_ins=vision),
        mock.patch.object(torch.Tensor, "cuda", lambda value, *device: value),
        mock.patch.object(torch.Tensor, "resize", torch.Tensor.reshape),  # gone, where a network is traced
        mock.patch.object(nn.init, "xavier_uniform", nn.init.xavier_uniform_, create=True),
    ):
        import ops.ssn_ops as heads  # pyright: ignore[reportMissingImports]
        import ops.utils as utils  # pyright: ignore[reportMissingImports]
        import ssn_models as networks  # pyright: ignore[reportMissingImports]

        yield heads, networks, utils


def rows(clone: Path, model: str) -> Iterator[Row]:
    """Widths of the heads, losses, heads on features, suppression and recipe."""
    with their_modules(clone) as (heads, networks, utils):
        ours = models.build(model, input_dim=1024, num_classes=CLASSES, preset="paper").eval()
        yield from loss_rows(heads, model, ours)
        yield from head_rows(heads, networks, model)
        yield suppression_row(utils, model, ours)
        for name, value, reference in (
            ("dropout", ours.config.dropout, 0.8),
            ("NMS tIoU, THUMOS14", ours.config.post.nms_tiou, 0.2),
            ("detections, THUMOS14", ours.config.post.max_detections, 2000),
        ):
            how = "theirs read from ssn_opts.py and data/dataset_cfg.yaml"
            yield Row(model, "recipe", name, value, reference, abs(value - reference), 0.0, how)


def loss_rows(theirs: ModuleType, model: str, ours) -> Iterator[Row]:
    """Widths of the heads and two losses of drawn scores."""
    pyramid = theirs.StructuredTemporalPyramidPooling(ours.config.width, True, configs=PYRAMID)
    for name, layer, width in (
        ("activity", ours.activity, pyramid.activity_feat_dim()),
        ("completeness", ours.completeness, pyramid.completeness_feat_dim()),
    ):
        difference = abs(layer.in_features - width)
        how = "inputs of the classifier; their pyramid (1, (1, 2), 1) of features as wide as ours"
        yield Row(model, "parameters", name, layer.in_features, width, difference, 0.0, how)
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    group, count = 7, 7 * RECORDINGS
    labels = torch.randint(CLASSES, (RECORDINGS, 1), generator=generator).expand(-1, group).flatten()
    role = torch.tensor([COMPLETE] + [INCOMPLETE] * 6).repeat(RECORDINGS)
    # theirs takes the hardest of each recording, ours the hardest of the batch: one of each is hard here
    completeness = draw(count, CLASSES) - torch.where(torch.arange(count) % group < 2, -4.0, 4.0)[:, None]
    regression, wanted = draw(count, CLASSES, 2), draw(count, 2)
    segment = torch.tensor([[0.0, 10.0]]).expand(count, -1)
    centre, length = 5 + 10 * wanted[:, 0], 10 * wanted[:, 1].exp()
    target = torch.stack([centre - length / 2, centre + length / 2], 1)
    activity = draw(count, CLASSES + 1)
    our_losses = ours.proposal_losses(role, labels, target, segment, activity, completeness, regression)
    complete = role == COMPLETE
    hinge = theirs.CompletenessLoss()(completeness, labels + 1, 1, group)
    location = theirs.ClassWiseRegressionLoss()(regression[complete], labels[complete] + 1, wanted[complete])
    assert not (role == BACKGROUND).any()
    for name, value, weight in (
        ("completeness", hinge, ours.config.completeness_weight),
        ("location", location, ours.config.regression_weight),
    ):
        pair = float(our_losses[name]) / weight, float(value)
        yield Row(model, "loss", name, *pair, abs(pair[0] - pair[1]), 1e-5, HOW)


class Snippets(nn.Module):
    """Stands in for their image network: the features of a snippet are in its three planes already."""

    last_layer_name = "fc"

    def __init__(self, width: int):
        super().__init__()
        self.fc = nn.Linear(width, 1)  # they replace it by their dropout

    def forward(self, planes: Tensor) -> Tensor:
        """(N, 3, S, S) → (N, C)."""
        return self.fc(planes.flatten(1))

    @staticmethod
    def planes(features: Tensor) -> Tensor:
        """(N, C) → (N, 3, S, S)."""
        return features.unflatten(1, (3, int((features.shape[1] // 3) ** 0.5), -1))


def their_network(networks: ModuleType, width: int, parts: tuple[int, int, int]):
    """Their network behind the features, for `parts` snippets of start, course and end."""

    class Network(networks.SSN):
        def _prepare_base_model(self, base_model):
            self.base_model = Snippets(width)

    torch.manual_seed(0)
    with redirect_stdout(StringIO()), warnings.catch_warnings(action="ignore"):
        network = Network(CLASSES, *parts, "RGB", stpp_cfg=PYRAMID)
    network.eval()  # theirs returns nothing
    return network


def copy_weights(theirs, ours) -> None:
    """Larger weights than theirs at the start, in both, in our order of classes."""
    with torch.no_grad():
        for layer in (theirs.activity_fc, theirs.completeness_fc, theirs.regressor_fc):
            layer.weight.normal_(0, 0.02)
            layer.bias.normal_(0, 0.1)
        background_last = [*range(1, CLASSES + 1), 0]
        ours.activity.weight.copy_(theirs.activity_fc.weight[background_last])
        ours.activity.bias.copy_(theirs.activity_fc.bias[background_last])
        for our_layer, layer in (
            (ours.completeness, theirs.completeness_fc),
            (ours.regression, theirs.regressor_fc),
        ):
            our_layer.weight.copy_(layer.weight * parts_scale(layer.weight))
            our_layer.bias.copy_(layer.bias)


def parts_scale(weight: Tensor) -> Tensor:
    """Of each input: they divide each of the three parts of the course by three, ours does not."""
    return torch.tensor([1.0, 1 / 3, 1 / 3, 1 / 3, 1.0]).repeat_interleave(weight.shape[1] // 5)


def head_rows(heads: ModuleType, networks: ModuleType, model: str) -> Iterator[Row]:
    """MACs, scores, losses and gradients of the heads."""
    width = 3 * 16**2  # three planes of a picture
    ours = models.build(model, input_dim=1024, num_classes=CLASSES, preset="paper", width=width).eval()
    points = ours.config.part_points
    theirs = their_network(networks, width, (points, 2 * points, points))
    copy_weights(theirs, ours)
    draw = lambda *shape: torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    slope, base = draw(2, TOGETHER, 1, width)
    x = base + slope * torch.linspace(-1, 1, 100)[:, None]
    segments = torch.tensor(PROPOSALS, dtype=torch.float32)
    (start, end), role = segments.unbind(1), torch.tensor(ROLES)
    middle, length = (start + end) / 2, end - start
    borders = torch.stack([start - length / 2, start, middle, end, end + length / 2], 1)
    stages = torch.stack([borders[:, :-1], borders[:, 1:]], -1).flatten(0, 1)  # (P · 4, 2)
    segments, stages = (each.expand(TOGETHER, -1, -1) for each in (segments, stages))
    planes = Snippets.planes(sample_segments(x, stages, points).flatten(0, 2))
    target = torch.tensor([ANNOTATION]).expand(len(role), -1)
    shift = (target.mean(1) - middle) / length
    wanted = torch.stack([shift, ((target[:, 1] - target[:, 0]) / length).log()], 1)
    label = torch.full((len(role),), LABEL)
    published = lambda planes: theirs(
        planes,
        torch.ones(TOGETHER * len(role), 2),
        torch.where(role == BACKGROUND, 0, label + 1).repeat(TOGETHER),
        wanted.repeat(TOGETHER, 1),
        torch.tensor([0] + [1] * 6 + [2]).repeat(TOGETHER),  # complete, incomplete, background
    )
    counts = (
        count_call(ours, lambda x: ours.classify(x, segments), x),
        count_call(theirs, published, planes),
    )
    unknown = ", ".join(sorted({*counts[0][1], *counts[1][1]}))
    how = "tal_lib.cost.macs on both, from the features on" + (f"; not counted: {unknown}" if unknown else "")
    macs = counts[0][0], counts[1][0]
    case = f"heads, {TOGETHER * len(role)} proposals"
    yield Row(model, "MACs", case, *macs, abs(macs[0] - macs[1]), 0.0, how)

    activity, activity_target, completeness, completeness_target, regression, regressed, location = published(
        planes
    )
    scores = ours.classify(x, segments)
    complete = role == COMPLETE
    background_first = [CLASSES, *range(CLASSES)]
    for name, our_scores, their_scores in (
        ("activity", scores[0][:, complete | (role == BACKGROUND)][..., background_first], activity),
        ("completeness", scores[1][:, role != BACKGROUND], completeness),
        ("location", scores[2][:, complete], regression),
    ):
        pair = our_scores.detach().flatten(0, 1), their_scores.detach()
        largest = [float(each.abs().max()) for each in pair]
        yield Row(model, "forward", name, *largest, largest_difference(*pair), 1e-5, LINEAR)
    # theirs takes the hardest of each recording, ours the hardest of the batch: one recording at a time
    parts = [
        ours.proposal_losses(role, label, target, segments[index], *(score[index] for score in scores))
        for index in range(TOGETHER)
    ]
    our_losses = {name: sum(part[name] for part in parts) / TOGETHER for name in parts[0]}
    their_losses = {
        "activity": nn.CrossEntropyLoss()(activity, activity_target),
        "completeness": heads.CompletenessLoss()(completeness, completeness_target, 1, len(role) - 1)[0],
        "location": heads.ClassWiseRegressionLoss()(regression, regressed, location),
    }
    weights = {
        "activity": 1.0,
        "completeness": ours.config.completeness_weight,
        "location": ours.config.regression_weight,
    }
    for name, value in their_losses.items():
        pair = float(our_losses[name].detach()), float(value.detach()) * weights[name]
        yield Row(model, "loss", f"{name}, of the heads", *pair, abs(pair[0] - pair[1]), 1e-5, LINEAR)
    sum(our_losses.values()).backward()
    sum(value * weights[name] for name, value in their_losses.items()).backward()
    yield gradient_row(
        model,
        "activity",
        ours.activity.weight.grad,
        theirs.activity_fc.weight.grad[[*range(1, CLASSES + 1), 0]],
        LINEAR,
    )
    for name, our_layer, layer in (
        ("completeness", ours.completeness, theirs.completeness_fc),
        ("location", ours.regression, theirs.regressor_fc),
    ):
        expected = layer.weight.grad / parts_scale(layer.weight)
        yield gradient_row(model, name, our_layer.weight.grad, expected, LINEAR)


@torch.no_grad()
def suppression_row(utils: ModuleType, model: str, ours) -> Row:
    """Detections of drawn scores without regression. Their script is no function: we repeat its product of
    scores and call its softmax and its NMS.
    """
    generator = torch.Generator().manual_seed(2)
    draw = lambda *shape: torch.rand(*shape, generator=generator)
    start = 400 * draw(1, NMS_PROPOSALS)
    segments = torch.stack([start, start + 5 + 90 * draw(1, NMS_PROPOSALS)], -1)
    activity, completeness = draw(1, NMS_PROPOSALS, CLASSES + 1), 2 * draw(1, NMS_PROPOSALS, CLASSES)
    exist, mask = torch.ones(1, NMS_PROPOSALS, dtype=torch.bool), torch.ones(1, 500, dtype=torch.bool)
    regression = torch.zeros(1, NMS_PROPOSALS, CLASSES, 2)
    outputs = (None, None, segments, exist, activity, completeness, regression)
    our_segments, our_scores, our_labels = suppress(ours.candidates(outputs, mask)[0], ours.config.post)
    product = utils.softmax(activity[0, :, :-1].numpy()) * np.exp(completeness[0].numpy())
    kept = []
    for label in range(CLASSES):
        boxes = np.concatenate([segments[0].numpy(), product[:, label, None]], 1)
        boxes = utils.temporal_nms(boxes, ours.config.post.nms_tiou)
        kept.append(np.concatenate([np.full((len(boxes), 1), label), boxes], 1))
    theirs = np.concatenate(kept)
    table = np.concatenate([our_labels[:, None], our_segments, our_scores[:, None] * np.e], 1)
    table = table[np.lexsort((-table[:, 3], table[:, 0]))]
    same = len(table) == len(theirs)
    how = "drawn scores of 100 proposals, regression zero; labels, segments (steps) and scores × e, in order"
    difference = float(np.abs(table - theirs).max()) if same else float("inf")
    return Row(model, "decoding", "scores and hard NMS", len(table), len(theirs), difference, 1e-4, how)
