"""AFSD against its authors' code, TencentYoutuResearch/ActionDetection-AFSD.

Their network begins with I3D on frames. The comparison starts from the maps of I3D that enter their pyramid:

- ActivityNet's form has one map (1024 channels, 3 × 3 places). Flattened, it is 9,216 features a step, and
  their first convolution is our input layer: the whole head is compared.
- THUMOS14's form has two maps. Their first two levels are computed by their code and enter our pyramid, which
  does the rest.

Their boundary max-pooling is a CUDA extension. A loop over recordings and segments with the arithmetic of its
kernel stands in for it. GAF has no code to compare with.
"""

import importlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

import torch
from torch import Tensor, nn

from experiments.authors import Row, importable, largest_difference, parameters, perturb
from tal_lib import models
from tal_lib.cost import count_macs
from tal_lib.data import Batch
from tal_lib.models.parts.boundary_pooling import pool_regions
from tal_lib.models.parts.saliency_loss import boundary_contrast
from tal_lib.training import recipe_for

FOLDER = "AFSD"
MODELS = ("afsd",)
MAPS = {"Mixed_4f": (832, 6, 6), "Mixed_5c": (1024, 3, 3)}  # channels and places of I3D's maps
FORMS = {"thumos14": ("paper", 20, 64, 256), "anet": ("paper_activitynet", 1, 96, 768)}


def rows(clone: Path, model: str) -> Iterator[Row]:
    """Its rows of the fidelity table."""
    for form in FORMS:
        with _imported(clone, form) as code:
            yield from _compared(code, form)


def _row(form, aspect, case, ours, theirs, limit, how, difference=None):
    difference = abs(ours - theirs) if difference is None else difference
    return Row("afsd", aspect, f"{form}: {case}", ours, theirs, float(difference), limit, how)


# their code


@contextmanager
def _imported(clone: Path, form: str) -> Iterator[SimpleNamespace]:
    """Their modules of one data set. They read the command line when they are imported."""
    location, share = ("10", "0.5") if form == "thumos14" else ("1", "0.6")  # of their README
    arguments = ["train.py", str(clone.resolve() / "configs" / f"{form}.yaml")]
    arguments += [f"--lw={location}", "--cw=1", f"--piou={share}"]
    stand_ins = {"boundary_max_pooling_cuda": ModuleType("boundary_max_pooling_cuda")}
    vars(stand_ins["boundary_max_pooling_cuda"]).update(forward=pool, backward=pool_gradient)
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as scratch, importable(clone.resolve(), "AFSD", stand_ins=stand_ins):
        with mock.patch.object(sys, "argv", arguments):
            os.chdir(scratch)  # their training script makes a folder
            try:
                names = ("BDNet", "multisegment_loss", "train")
                net, loss, train = (importlib.import_module(f"AFSD.{form}.{name}") for name in names)
                common = importlib.import_module("AFSD.common.segment_utils")
                config = importlib.import_module("AFSD.common.config").config
            finally:
                os.chdir(before)
        yield SimpleNamespace(net=net, loss=loss, train=train, common=common, config=config)


def pool(x: Tensor, segments: Tensor) -> Tensor:
    """Boundary max-pooling of features (B, C, T) at segments (B, P, 4) → (B, C, P), by loops."""
    half, last = x.shape[1] // 2, x.shape[2] - 1
    out = x.new_empty(*x.shape[:2], segments.shape[1])
    for n, recording in enumerate(segments.tolist()):
        for k, bounds in enumerate(recording):
            for side in range(2):
                low, high = (min(max(0, int(bound)), last) for bound in bounds[2 * side : 2 * side + 2])
                channels = slice(side * half, (side + 1) * half)
                out[n, channels, k] = x[n, channels, low : max(low, high) + 1].amax(-1)
    return out


def pool_gradient(gradient: Tensor, x: Tensor, segments: Tensor) -> Tensor:
    """Gradient of `pool` for its features: to the first of the largest."""
    half, last, result = x.shape[1] // 2, x.shape[2] - 1, torch.zeros_like(x)
    for n, recording in enumerate(segments.tolist()):
        for k, bounds in enumerate(recording):
            for side in range(2):
                low, high = (min(max(0, int(bound)), last) for bound in bounds[2 * side : 2 * side + 2])
                channels = torch.arange(side * half, (side + 1) * half)
                at = low + x[n, channels, low : max(low, high) + 1].argmax(-1)
                result[n, channels, at] += gradient[n, channels, k]
    return result


def translated(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of their head by our names and in our layout, without the layers that read I3D's maps."""
    names = {"loc_proposal_branch": "refinement.for_location", "conf_proposal_branch": "refinement.for_class"}
    names |= {"prop_loc_head": "refinement.offset", "prop_conf_head": "refinement.class_out"}
    names |= {"center_head": "refinement.quality", "loc_head": "boundary_out", "conf_head": "class_out"}
    blocks = {"cur_point_conv": "point", "lr_conv": "ends", "roi_conv": "frame", "proposal_conv": "mix"}
    ours, scales = {}, []
    for key, value in state.items():
        part, *rest = key.split(".")
        if part == "loc_heads":
            scales.append(value)
            continue
        kind = {"weight": "weight", "bias": "bias"}[rest[-1]]
        if value.ndim == 3:
            value = value.permute(2, 1, 0)
        elif value.ndim == 5:  # the places of a map as features of a step
            value = value.flatten(1).T[None]
        if part == "pyramids":
            level, layer = int(rest[0]), ("conv", "norm")[int(rest[1])]
            place = f"branch.{level - 1}" if level else "embedding.0"
            key = f"{place}.{layer}.{kind}"
        elif part in ("loc_tower", "conf_tower"):
            tower = {"loc_tower": "boundary_tower", "conf_tower": "class_tower"}[part]
            key = f"{tower}.layers.{rest[0]}.{('conv', 'norm')[int(rest[1])]}.{kind}"
        elif part == "deconv":
            key = f"frame.{int(rest[0]) // 3}.{('conv', 'norm')[int(rest[0]) % 3]}.{kind}"
        elif rest[0] in blocks:
            key = f"{names[part]}.{blocks[rest[0]]}.{('conv', 'norm')[int(rest[1])]}.{kind}"
        else:
            key = f"{names[part]}.{kind}"
        ours[key] = value.contiguous()
    return ours | {"scales.values": torch.cat(scales)}


# what is compared


def _compared(code, form) -> Iterator[Row]:
    preset, classes, steps, frames = FORMS[form]
    torch.manual_seed(0)
    theirs = code.net.CoarsePyramid(*([[832, 1024]] if form == "thumos14" else []))
    theirs = perturb(theirs).eval()
    with torch.no_grad():  # distances are exponentials of this layer: keep them within a clip's size
        theirs.loc_head.conv1d.weight.div_(20)
    ours = models.build("afsd", input_dim=9216, num_classes=classes, preset=preset).eval()
    state = translated(theirs.state_dict())
    reads_maps = ("embedding.0", "branch.0") if form == "thumos14" else ()
    problems = ours.load_state_dict(
        {key: value for key, value in state.items() if not key.startswith(reads_maps)}
        if reads_maps
        else state,
        strict=False,
    )
    missing = [key for key in problems.missing_keys if not key.startswith((*reads_maps, "positives"))]
    assert not missing and not problems.unexpected_keys, (missing, problems.unexpected_keys)

    maps_only = sum(
        weight.numel() for key, weight in theirs.named_parameters() if "conv3d" in key
    )  # on I3D's maps
    yield _row(
        form,
        "parameters",
        "head without the input layers",
        parameters(ours) - (ours.embedding[0].conv.weight.numel() + 512) - _extra(ours, form),
        parameters(theirs) - maps_only,
        0.0,
        f"counted; theirs have {parameters(theirs):,} with their 3-D convolutions on I3D's maps",
    )
    for count in (1, 2):
        maps = _maps(steps, count)
        with torch.no_grad():
            want, levels = _theirs_run(theirs, maps, form)
            got = _ours_run(ours, maps, levels, form)
        difference = max(
            largest_difference(a, b) for a, b in zip(_comparable(got, ours, frames), want, strict=True)
        )
        yield _row(
            form,
            "forward",
            f"T = {steps}, batch {count}",
            float(got[0].abs().max()),
            float(want[1].abs().max()),
            1e-3,
            "distances (frames), logits, offsets, quality, boundary curves; copied perturbed weights",
            difference,
        )
    yield from _training(code, ours, theirs, form)
    yield from _pooling(form, steps)
    yield _decoding(code, ours, theirs, form)
    yield from _recipe(code, form)
    if form == "anet":
        yield from _cost(ours, theirs)


def _extra(ours, form) -> int:
    """Parameters of our first downsampling, which is a 3-D convolution on a map in THUMOS14's form."""
    return ours.branch[0].conv.weight.numel() + 512 if form == "thumos14" else 0


def _maps(steps: int, count: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = {"Mixed_4f": steps, "Mixed_5c": steps // 2} if steps == 64 else {"Mixed_5c": steps}
    return {
        name: torch.randn(count, MAPS[name][0], length, *MAPS[name][1:], generator=generator)
        for name, length in lengths.items()
    }


def _theirs_run(theirs, maps, form):
    """Their outputs (B, …, last axis small), and the levels at which our pyramid enters."""
    seen = []
    hook = theirs.loc_tower.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    loc, conf, prop_loc, prop_conf, center, _, *curves = theirs(maps)
    hook.remove()
    means = [torch.tanh(curve).mean(-1) for curve in curves]
    frame, level = torch.stack(means[:2], -1), torch.stack(means[2:], -1)
    return (loc, conf, prop_loc, prop_conf, center, frame, level), [x.transpose(1, 2) for x in seen[:2]]


def _ours_run(ours, maps, levels, form):
    if form == "anet":
        return ours(maps["Mixed_5c"].permute(0, 1, 3, 4, 2).flatten(1, 3))
    x = levels[1]
    for conv in ours.branch[1:]:
        x, _ = conv(x, None)
        levels = [*levels, x]
    return ours.heads_on(levels[0], None, levels, [None] * len(levels))


def _comparable(outputs, ours, frames):
    """Our outputs in their order: distances in frames."""
    logits, distances, again, offsets, quality, curves, level_curves = outputs
    c = ours.config
    reach = distances * ours.points_of_clip(c.clip_steps).stride[:, None] * c.frames
    return reach, logits, offsets, again, quality, curves, level_curves


def _annotations(steps, frames, classes):
    """Segments in frames, and labels."""
    of = lambda *pairs: torch.tensor(pairs) * frames / 256
    segments = [of((20.0, 90.0), (60.0, 75.5), (150.25, 250.0)), of((1.0, 256.0), (100.0, 103.0))]
    labels = [torch.tensor(each) % classes for each in ([3, 7, 19], [0, 5])]
    return segments, labels


def _training(code, ours, theirs, form) -> Iterator[Row]:
    """Their losses of two clips, by their training step, and the gradient of every shared parameter."""
    _, classes, steps, frames = FORMS[form]
    segments, labels = _annotations(steps, frames, classes)
    count = 1 if form == "anet" else 2  # ActivityNet's form averages over recordings: the batch is one
    segments, labels, maps = segments[:count], labels[:count], _maps(steps, count)
    for module in (ours, theirs):
        module.zero_grad()
    curves_at = torch.zeros(count, 2, frames)
    for n, each in enumerate(segments):
        for start, end in each.tolist():
            reach = max((end - start) / 10.0, 2.0) / 2
            for side, at in enumerate((start, end)):
                low, high = (min(max(int(round(at + move)), 0), frames - 1) for move in (-reach, reach))
                curves_at[n, side, low : high + 1] = 1
    if form == "anet":  # there the first curve is the action's
        curves_at = torch.cat([torch.zeros(count, 1, frames), curves_at], 1)
    targets = [torch.cat([each / frames, label[:, None] + 1.0], 1) for each, label in zip(segments, labels)]
    entered = []

    def network(maps):
        hook = theirs.loc_tower.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
        keys = ("loc", "conf", "prop_loc", "prop_conf", "center", "priors", "start", "end")
        keys += ("start_loc_prop", "end_loc_prop", "start_conf_prop", "end_conf_prop")
        outputs = dict(zip(keys, theirs(maps), strict=True))
        hook.remove()
        return outputs

    code.train.CPD_Loss = code.loss.MultiSegmentLoss(
        classes + 1, code.config["training"]["piou"], 1.0, use_focal_loss=True
    )
    clips = SimpleNamespace(cuda=lambda: maps)  # their step moves its input to a GPU
    with mock.patch.object(torch.Tensor, "cuda", lambda self: self):
        parts = code.train.forward_one_epoch(
            lambda clips, ssl=False: network(clips), clips, targets, curves_at, training=True, ssl=False
        )
    names = ("regression", "classification", "offsets", "refined", "quality", "start", "end")
    want = dict(zip(names, parts, strict=True))
    location = code.config["training"]["lw"]
    total = sum(location * want[name] if name in ("regression", "offsets") else want[name] for name in want)
    total.backward()

    batch = _batch(count, steps, classes, [each / (frames / steps) - 0.5 for each in segments], labels)
    levels = [level.transpose(1, 2).detach() for level in entered[:2]]
    losses = ours.loss(_ours_run(ours, maps, levels, form), batch)
    losses["total"].backward()
    want["boundary"] = want.pop("start") + want.pop("end")
    for name, value in (*want.items(), ("total", total)):
        yield _row(
            form,
            "loss",
            name,
            float(losses[name].detach()),
            float(value.detach()),
            1e-3,
            f"{count} clips, {sum(map(len, segments))} segments, by their training step",
        )
    shared = translated(
        {name: weight.grad for name, weight in theirs.named_parameters() if weight.grad is not None}
    )
    names = [name for name, weight in ours.named_parameters() if name in shared and weight.grad is not None]
    if form == "thumos14":
        names = [name for name in names if not name.startswith(("embedding.0", "branch.0"))]
    gradients = dict(ours.named_parameters())
    yield _row(
        form,
        "gradient",
        f"{len(names)} tensors",
        max(float(gradients[name].grad.abs().max()) for name in names),
        max(float(shared[name].abs().max()) for name in names),
        1e-2,
        "of the total loss, every shared parameter",
        max(largest_difference(gradients[name].grad, shared[name]) for name in names),
    )
    if form == "thumos14":
        yield _contrast(code, form)


def _contrast(code, form) -> Row:
    """The triplet of a spliced clip, by their network and training step on given features."""
    pieces, scales = torch.tensor([[3.0, 9.0], [13.0, 20.0], [9.0, 13.0]]), [1, 4, 4]
    generator = torch.Generator().manual_seed(1)
    features = [torch.rand(1, 64, 256 // scale, generator=generator) for scale in scales]
    stub = SimpleNamespace(
        backbone=lambda x: None,
        coarse_pyramid_detection=lambda maps, ssl: features,
        boundary_max_pooling=pool,
        scales=scales,
    )
    at = pieces * 4
    proposals = torch.cat([at[:2], at[2:] + torch.tensor([1.0, -1.0])])
    with mock.patch.object(torch.Tensor, "cuda", lambda self: self):
        net = SimpleNamespace(
            module=lambda x, proposals, ssl: code.net.BDNet.forward(stub, x, proposals, ssl)
        )
        theirs = float(code.train.forward_one_epoch(net, torch.zeros(1), [proposals], ssl=True))
    ours = sum(
        weight * float(boundary_contrast(part.transpose(1, 2), pieces, 4, scale))
        for weight, part, scale in zip((1.0, 0.1, 0.1), features, scales)
    )
    return _row(
        form, "loss", "contrast", ours, theirs, 1e-5, "their triplet loss on given features and pieces"
    )


def _pooling(form, steps) -> Iterator[Row]:
    """Our boundary max-pooling beside the loop that is written from their kernel."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(3, 16, steps, generator=generator)
    at = (torch.rand(3, 400, 4, generator=generator) * 2.2 - 0.6) * steps
    ours = pool_regions(x.transpose(1, 2), at, torch.full((3, 1), steps)).transpose(1, 2)
    yield _row(
        form,
        "forward",
        "boundary max-pooling",
        float(ours.abs().max()),
        float(x.abs().max()),
        0.0,
        "1,200 regions, also empty ones and ones outside, beside a loop with their kernel's arithmetic",
        largest_difference(ours, pool(x, at)),
    )


def _batch(count, steps, classes, segments, labels) -> Batch:
    """Clips whose step t covers the seconds [t, t + 1]."""
    return Batch(
        recordings=tuple(f"r{index}" for index in range(count)),
        features=torch.zeros(count, 9216, steps),
        mask=torch.ones(count, steps, dtype=torch.bool),
        durations=torch.full((count,), float(steps)),
        stride_s=torch.ones(count),
        window_s=torch.ones(count),
        classes=tuple(f"c{index}" for index in range(classes)),
        segments=tuple(segments),
        labels=tuple(labels),
    )


def _decoding(code, ours, theirs, form) -> Row:
    """Detections of one clip. Their test script is no function: we repeat its arithmetic and call its NMS."""
    _, classes, steps, frames = FORMS[form]
    maps = _maps(steps, 1, seed=5)
    with torch.no_grad():
        outputs, levels = _theirs_run(theirs, maps, form)
        loc, conf, prop_loc, prop_conf, center = (output[0] for output in outputs[:5])
        got = _ours_run(ours, maps, levels, form)
        loc = 0.5 * (loc[:, :1] + loc[:, 1:]) * prop_loc + loc
        prior = torch.cat(theirs.priors)[:, :1] * frames
        spans = torch.cat([prior - loc[:, :1], prior + loc[:, 1:]], 1).clamp(0, frames)
        scores = (conf.softmax(-1) + prop_conf.softmax(-1)) / 2 * center.sigmoid()
        c = ours.config.post
        batch = _batch(1, steps, classes, [], [])
        detected = ours._table(batch, 0, ours.candidates(got, batch.mask)[0], c)
    wanted, lost = [], 0
    for label in range(1, classes + 1):
        good = scores[:, label] > c.score_threshold
        if not good.any():
            continue
        rows = torch.cat([spans[good] * (steps / frames), scores[good, label, None]], 1)
        kept, _ = code.common.softnms_v2(
            rows.clone(), sigma=c.nms_sigma, top_k=5000, score_threshold=c.min_score
        )
        lost += 1
        wanted += [(label - 1, *row) for row in kept.tolist() if row[1] > row[0]]
    table = torch.tensor(wanted).double()
    ours_table = torch.tensor(
        [(int(r.label[1:]), r.start, r.end, r.score) for r in detected.itertuples()], dtype=torch.double
    )
    apart = (table[:, None] - ours_table[None]).abs().amax(-1) if len(table) and len(ours_table) else table
    return _row(
        form,
        "decoding",
        "one clip",
        len(ours_table),
        len(table),
        1e-3,
        f"each of their detections has one of ours this close (label, start, end, score; one step is one "
        f"second); their soft-NMS loses the last candidate of a class: at most {lost} more are ours",
        float(apart.min(1).values.max()) if len(ours_table) - len(table) in range(lost + 1) else float("inf"),
    )


def _recipe(code, form) -> Iterator[Row]:
    if form != "thumos14":
        return
    training, dataset, recipe = code.config["training"], code.config["dataset"], recipe_for("afsd", "paper")
    steps = dataset["training"]["clip_length"] // 4
    pairs = {
        "learning rate": (recipe.learning_rate, training["learning_rate"]),
        "weight decay": (recipe.weight_decay, training["weight_decay"]),
        "epochs": (recipe.epochs, training["max_epoch"]),
        "batch": (recipe.batch_size, training["batch_size"]),
        "clip in steps": (recipe.max_steps, steps),
    }
    for case, (ours, theirs) in pairs.items():
        yield _row(form, "recipe", case, ours, theirs, 1e-12, "read from their options")


class _FromFeatures(nn.Module):
    """Their head on features (1, 9216, T), as our counter and clock call it."""

    def __init__(self, theirs):
        super().__init__()
        self.head = theirs

    def forward(self, features: Tensor):
        maps = features.unflatten(1, (1024, 3, 3)).permute(0, 1, 4, 2, 3)
        return self.head({"Mixed_5c": maps})[:5]


def _cost(ours, theirs) -> Iterator[Row]:
    """MACs and time of ActivityNet's form. Its pooling is stood in for in both counts and clocks."""
    steps = FORMS["anet"][2]
    wrapped, features = _FromFeatures(theirs).eval(), torch.randn(1, 9216, steps)
    ours_macs, theirs_macs = (count_macs(model, 9216, steps)[0] for model in (ours, wrapped))
    yield _row("anet", "MACs", f"T = {steps}", ours_macs, theirs_macs, None, "our counter on both")
    seconds = {"ours": [], "theirs": []}
    nothing = lambda x, segments: x[..., :1].expand(-1, -1, segments.shape[1])
    branches = (theirs.loc_proposal_branch, theirs.conf_proposal_branch)
    with torch.no_grad():
        for branch in branches:
            branch.boundary_max_pooling.forward = nothing
        for _ in range(5):
            for name, model in (("ours", ours), ("theirs", wrapped)):
                start = time.perf_counter()
                model(features)
                seconds[name].append(time.perf_counter() - start)
        for branch in branches:
            del branch.boundary_max_pooling.forward
    ours_s, theirs_s = (float(torch.tensor(seconds[name]).median()) for name in ("ours", "theirs"))
    yield Row(
        "afsd",
        "time",
        f"anet: forward, T = {steps}",
        ours_s,
        theirs_s,
        ours_s / theirs_s,
        None,
        "seconds, medians of 5; theirs without its pooling",
    )
