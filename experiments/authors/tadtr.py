"""TadTR against its authors' code, xlliu7/TadTR (THUMOS14, two-stream I3D features).

Their RoIAlign is a CUDA extension. A loop over segments, bins and samples with the arithmetic of its kernel
stands in for it, and its gradient comes from autograd. `easydict`, `torchvision` and `joblib`, of which these
modules need a dictionary, a version number and a name, are stood in for where they are missing.
"""

import importlib
import time
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pandas as pd
import torch
import yaml
from torch import Tensor, nn

from experiments.authors import Row, importable, largest_difference, parameters, perturb
from tal_lib import models
from tal_lib.cost import count_macs
from tal_lib.data import Batch
from tal_lib.training import recipe_for

FOLDER = "TadTR"
MODELS = ("tadtr",)
CONFIG = "configs/thumos14_i3d2s_tadtr.yml"
STEPS, CLASSES, WIDTH = 128, 20, 256


def rows(clone: Path, model: str) -> Iterator[Row]:
    """Its rows of the fidelity table."""
    with importable(clone, "models", "util", "opts", "datasets", "Evaluation", stand_ins=_stand_ins()):
        code = _Code(clone)
        theirs, criterion, post = _theirs(code)
    ours = models.build("tadtr", input_dim=2048, num_classes=CLASSES, preset="paper").eval()
    problems = ours.load_state_dict(translated(theirs.state_dict()), strict=False)
    assert not problems.missing_keys and not problems.unexpected_keys, problems

    yield _row("parameters", "all", parameters(ours), parameters(theirs), 0.0, "counted")
    yield _row(
        "MACs",
        f"T = {STEPS}",
        count_macs(ours, 2048, STEPS)[0],
        count_macs(_FromFeatures(theirs).eval(), 2048, STEPS)[0],
        None,
        "our counter on both; theirs computes the boxes of a layer twice",
    )
    for steps in (100, 128, 577, 2304):
        features = _features(steps)
        with torch.no_grad():
            got, want = ours(features), _run(theirs, features)
        difference = max(
            largest_difference(got[0][0], want[0]),
            largest_difference(got[1][0], want[1]),
            largest_difference(got[2][0].sigmoid(), want[2]),
        )
        yield _row(
            "forward",
            f"T = {steps}, {len(want[0])} slices",
            float(got[0].abs().max()),
            float(want[0].abs().max()),
            5e-4,
            "class logits, boxes and actionness of every layer and slice; copied perturbed weights",
            difference,
        )
    yield from _training(ours, theirs, criterion)
    for steps in (128, 577, 2304):
        yield _detections(code, ours, theirs, post, steps)
    yield from _recipe(code)
    yield from _times(ours, theirs)


def _row(aspect, case, ours, theirs, limit, how, difference=None):
    difference = abs(ours - theirs) if difference is None else difference
    return Row("tadtr", aspect, case, ours, theirs, float(difference), limit, how)


# their code


class _Code:
    """Their modules, configured as in `CONFIG`. Made inside `importable`."""

    def __init__(self, clone: Path):
        self.cfg = importlib.import_module("opts").cfg
        self.cfg.update(yaml.safe_load((clone / CONFIG).read_text()))
        self.models = importlib.import_module("models")
        self.evaluator = importlib.import_module("datasets.tad_eval").TADEvaluator


def _theirs(code):
    """Their network with perturbed weights, their criterion and their post-processing."""
    torch.manual_seed(0)
    network, criterion, post = code.models.build_model(code.cfg)
    return perturb(network).eval(), criterion, post


def _stand_ins() -> dict[str, ModuleType]:
    class Options(dict):
        __getattr__, __setattr__ = dict.__getitem__, dict.__setitem__

    def module(name, **content):
        made = ModuleType(name)
        vars(made).update(content)
        return made

    return {
        "easydict": module("easydict", EasyDict=Options),
        "torchvision": module("torchvision", __version__="0.20.0"),
        "joblib": module("joblib", Parallel=None, delayed=None),
        "models.ops.roi_align.Align1D": module(
            "models.ops.roi_align.Align1D", forward=align, backward=align_gradient
        ),
    }


def align(x: Tensor, rois: Tensor, bins: int, ratio: int) -> Tensor:
    """RoIAlign of features (B, C, T) at rois (R, 3) of recording, start and end → (R, C, bins), by loops.

    The arithmetic of the authors' kernel, one value of all channels at a time.
    """
    length, averages = x.shape[2], []
    for which, start, end in rois.tolist():
        size = max(end - start, 1.0)
        grid = ratio if ratio > 0 else ceil(size / bins)
        for index in range(bins):
            total = 0
            for sample in range(grid):
                t = start + index * size / bins + (sample + 0.5) * size / bins / grid
                if -1 <= t <= length:
                    low = int(max(t, 0.0))
                    t, high = max(t, 0.0), low + 1
                    if low >= length - 1:
                        low = high = length - 1
                        t = float(low)
                    total = (
                        total + (1 - (t - low)) * x[int(which), :, low] + (t - low) * x[int(which), :, high]
                    )
            averages.append(total / grid if isinstance(total, Tensor) else x.new_zeros(x.shape[1]))
    return torch.stack(averages).unflatten(0, (len(rois), bins)).transpose(1, 2).contiguous()


def align_gradient(gradient, rois, bins, batch, channels, steps, ratio) -> Tensor:
    """Gradient of `align` for its features."""
    with torch.enable_grad():
        x = torch.zeros(batch, channels, steps, requires_grad=True)
        return torch.autograd.grad(align(x, rois, bins, ratio), x, gradient)[0]


def translated(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors by our names and in our layout."""
    ours = {}
    for key, value in state.items():
        if key.startswith("transformer.decoder.segment_embed"):
            continue  # the same tensors as segment_embed
        for old, new in (
            ("transformer.", ""),
            ("input_proj.0.0.", "reduce."),
            ("input_proj.0.1.", "norm."),
            ("reference_points", "reference"),
            ("encoder.layers.", "encoder."),
            ("decoder.layers.", "decoder."),
            ("class_embed.", "classify."),
            ("segment_embed.", "refine."),
            ("actionness_pred.", "actionness."),
            ("cross_attn.", "attention."),
            ("sampling_offsets", "offsets"),
            ("attention_weights", "weights"),
            ("value_proj", "values"),
            ("output_proj", "out"),
            ("linear1", "grow"),
            ("linear2", "shrink"),
        ):
            key = key.replace(old, new)
        if ".self_attn.in_proj_" in key:
            layer, kind = key.split(".self_attn.in_proj_")
            ours[f"{layer}.qk.{kind}"] = value[: 2 * WIDTH]
            ours[f"{layer}.v.{kind}"] = value[2 * WIDTH :]
            continue
        key = key.replace(".self_attn.out_proj.", ".mix.").replace(".self_attn.", ".attention.")
        if (
            key.startswith("decoder.") and ".norm" in key
        ):  # theirs: after cross-attention, self-attention, FFN
            layer, rest = key.split(".norm")
            key = f"{layer}.norms.{'102'[int(rest[0]) - 1]}{rest[1:]}"
        if key.startswith("refine."):
            part, layer, rest = key.split(".layers.")[0], *key.split(".layers.")[1].split(".")
            key = f"{part}.{2 * int(layer)}.{rest}"
        if key == "query_embed.weight":  # theirs: position, then content
            key, value = "query", torch.cat([value[:, WIDTH:], value[:, :WIDTH]], 1)
        elif key == "level_embed":
            key, value = "level", value[0]
        elif key == "reduce.weight":
            value = value[..., 0]
        elif key == "actionness.0.weight":  # theirs: channels, then bins
            value = value.unflatten(1, (WIDTH, -1)).transpose(1, 2).flatten(1)
        ours[key] = value
    return ours


# what is compared


def _features(steps: int, count: int = 1) -> Tensor:
    return torch.randn(count, 2048, steps, generator=torch.Generator().manual_seed(steps))


def _cut(features: Tensor) -> tuple[Tensor, list[int]]:
    """Slices (S, 2048, 128) of one recording as their test set has them, and the first step of each."""
    steps, stride = features.shape[2], 96
    count = 1 + max(0, ceil((steps - STEPS) / stride))
    padded = nn.functional.pad(features[0], (0, STEPS))
    return torch.stack([padded[:, stride * i : stride * i + STEPS] for i in range(count)]), [
        stride * i for i in range(count)
    ]


def _outputs(theirs, slices):
    return theirs((slices, torch.zeros(len(slices), STEPS, dtype=torch.bool)))


def _stacked(outputs):
    """Class logits and boxes of all layers (S, layers, Q, ·), and actionness (S, Q)."""
    every = [*outputs["aux_outputs"], outputs]
    return (
        torch.stack([layer["pred_logits"] for layer in every], 1),
        torch.stack([layer["pred_segments"] for layer in every], 1),
        outputs["pred_actionness"][..., 0],
    )


def _run(theirs, features):
    return _stacked(_outputs(theirs, _cut(features)[0]))


def _batch(features: Tensor, segments=(), labels=()) -> Batch:
    """Recordings whose step t covers the seconds [t, t + 1]."""
    count, _, steps = features.shape
    return Batch(
        recordings=tuple(f"r{index}" for index in range(count)),
        features=features,
        mask=torch.ones(count, steps, dtype=torch.bool),
        durations=torch.full((count,), float(steps)),
        stride_s=torch.ones(count),
        window_s=torch.ones(count),
        classes=tuple(f"c{index}" for index in range(CLASSES)),
        segments=tuple(segments),
        labels=tuple(labels),
    )


def _training(ours, theirs, criterion) -> Iterator[Row]:
    """Losses of three slices, and the gradient of every parameter; dropout off."""
    seconds = [
        torch.tensor([[10.0, 31.0], [50.5, 90.25]]),
        torch.tensor([[0.0, 128.0]]),
        torch.tensor([[3.0, 5.0], [100.0, 120.0], [101.0, 127.5]]),
    ]
    labels = [torch.tensor(each) for each in ([3, 7], [0], [19, 4, 4])]
    features = _features(STEPS, len(seconds))
    targets = [
        {"segments": torch.stack([each.mean(1), each[:, 1] - each[:, 0]], 1) / STEPS, "labels": names}
        for each, names in zip(seconds, labels)
    ]
    theirs.zero_grad()
    parts = criterion(_outputs(theirs, features), targets)
    total = sum(parts[key] * weight for key, weight in criterion.weight_dict.items() if key in parts)
    total.backward()
    ours.zero_grad()
    batch = _batch(features, [each - 0.5 for each in seconds], labels)
    losses = ours.loss(ours(features), batch)
    losses["total"].backward()
    summed = lambda name: float(sum(parts[key] for key in parts if key.startswith(name)).detach())
    how = "three slices, six segments, dropout off"
    for name, key in (
        ("classification", "loss_ce"),
        ("l1", "loss_segments"),
        ("iou", "loss_iou"),
        ("actionness", "loss_actionness"),
    ):
        yield _row("loss", name, float(losses[name]), summed(key), 1e-4, how)
    yield _row("loss", "total", float(losses["total"].detach()), float(total.detach()), 1e-3, how)
    gradients = translated(
        {name: weight.grad for name, weight in theirs.named_parameters(remove_duplicate=False)}
    )
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    difference = max(
        largest_difference(weight.grad, gradients[name]) for name, weight in ours.named_parameters()
    )
    yield _row("gradient", "every parameter", largest, largest, 1e-3, how, difference)


def _detections(code, ours, theirs, post, steps) -> Row:
    """Detections of a recording, one second a step, best first; ours beside theirs without repetitions."""
    features = _features(steps)
    slices, starts = _cut(features)
    with torch.no_grad():
        results = post(_outputs(theirs, slices), torch.full((len(slices),), float(STEPS)), fuse_score=True)
        detected = ours.detect(_batch(features))[0]
    table, info = [], {}
    for start, result in zip(starts, results):
        name = f"video_test_0_window_{start}_{min(start + STEPS, steps)}"  # they read the steps from the name
        info[name] = {"feature_fps": 1.0}
        for segment, score, label in zip(result["segments"], result["scores"], result["labels"]):
            first, last = (segment + start).tolist()
            table.append(("video_test_0", name, first, last, float(score), int(label)))
    columns = ["video-id", "slice-id", "t-start", "t-end", "score", "cls"]
    state = SimpleNamespace(all_pred={"raw": pd.DataFrame(table, columns=columns)}, video_dict=info)
    code.evaluator.cross_window_fusion(state)
    wanted = state.all_pred["raw"].drop(columns=["video-id", "slice-id"])
    repeated = len(wanted)
    wanted = wanted.drop_duplicates()
    repeated -= len(wanted)
    wanted[["t-start", "t-end"]] = wanted[["t-start", "t-end"]].clip(0, steps)
    wanted = wanted[wanted["t-end"] > wanted["t-start"]].sort_values("score", ascending=False)
    ours_table, theirs_table = (
        torch.tensor(frame[list(columns)].to_numpy(float))
        for frame, columns in (
            (detected.assign(label=detected.label.str[1:].astype(int)), ("label", "start", "end", "score")),
            (wanted, ("cls", "t-start", "t-end", "score")),
        )
    )
    apart = (theirs_table[:, None] - ours_table[None]).abs().amax(-1)  # scores may tie: by place, not rank
    one_to_one = len(detected) == len(wanted) == len(apart.argmin(1).unique())
    difference = float(apart.amin(1).max()) if one_to_one else float("inf")
    return Row(
        "tadtr",
        "decoding",
        f"T = {steps}",
        len(detected),
        len(wanted),
        difference,
        1e-3,
        f"label, start, end, score of each; theirs clipped, and {repeated} repeated ones dropped",
    )


def _recipe(code) -> Iterator[Row]:
    cfg, recipe = code.cfg, recipe_for("tadtr", "paper")
    pairs = {
        "learning rate": (recipe.learning_rate, cfg.lr),
        "rate of slow modules": (
            recipe.learning_rate * recipe.slow_factor,
            cfg.lr * cfg.lr_linear_proj_mult,
        ),
        "weight decay": (recipe.weight_decay, cfg.weight_decay),
        "epochs": (recipe.epochs, cfg.epochs),
        "epoch of the step": (recipe.drops[0] * recipe.epochs, cfg.lr_step[0]),
        "batch": (recipe.batch_size, cfg.batch_size),
        "gradient clip": (recipe.clip_norm, cfg.clip_max_norm),
        "slice": (recipe.max_steps, cfg.slice_len),
    }
    for case, (ours, theirs) in pairs.items():
        yield _row("recipe", case, ours, theirs, 1e-12, "read from their options")


class _FromFeatures(nn.Module):
    """Their network on one slice of features (1, 2048, 128), as our counter calls it."""

    def __init__(self, theirs):
        super().__init__()
        self.network = theirs

    def forward(self, x: Tensor):
        outputs = _outputs(self.network, x)
        return outputs["pred_logits"], outputs["pred_segments"], outputs["pred_actionness"]


def _times(ours, theirs) -> Iterator[Row]:
    """Medians of the encoder-decoder forward pass, alternating; theirs without RoIAlign's stand-in."""
    features = _features(STEPS, 4)
    theirs.with_act_reg = False
    seconds = {"ours": [], "theirs": []}
    with torch.no_grad():
        for _ in range(7):
            for name, call in (
                ("ours", lambda: ours(features)),
                ("theirs", lambda: _outputs(theirs, features)),
            ):
                start = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - start)
    theirs.with_act_reg = True
    ours_s, theirs_s = (float(torch.tensor(seconds[name]).median()) for name in ("ours", "theirs"))
    yield Row(
        "tadtr",
        "time",
        "forward, 4 slices",
        ours_s,
        theirs_s,
        ours_s / theirs_s,
        None,
        "seconds, medians of 7; ours with actionness, theirs without",
    )
