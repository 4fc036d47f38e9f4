"""How ActionFormer, TriDet and TemporalMaxer learn, against their code: loss, gradient and recipe.

The three repositories share a form: `libs.utils` makes optimizer, schedule and average, `libs.datasets` makes
crops, and the model gives its losses in training mode. The files of this folder that name a clone call
`rows`. Drop path and input noise are off where numbers are compared: both draw random numbers in another
order.
"""

import importlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

import pandas as pd
import torch
from torch import nn

from experiments.authors import Row, importable, in_float64, largest_difference
from tal_lib import models
from tal_lib.data.batches import Batch, Item, collate
from tal_lib.data.views import distinct_annotations
from tal_lib.models.parts.blocks import DropPath
from tal_lib.models.released import _our_name, _translated
from tal_lib.training import Recipe, recipe_for
from tal_lib.training.loop import (
    learning_rate_factor,
    make_optimizer,
    make_scaler,
    parameter_groups,
    random_crop,
    training_step,
)
from tal_lib.training.state import Average

STEPS, CLASSES = 2304, 20
EXACT_STEPS = 576  # of the gradients in float64
STEPS_OF_EPOCH = 7  # of the schedule that is compared at every step
TRAINED = 50  # optimizer steps of the small training
SMALL = {"input_dim": 16, "embd_dim": 32, "fpn_dim": 32, "head_dim": 32, "max_seq_len": 576}
WINDOW_FRAMES, STRIDE_FRAMES = 16, 4  # of their THUMOS14 features


@dataclass(frozen=True)
class Clone:
    """One authors' repository and our model of it."""

    folder: Path
    model: str  # our name
    setting: str  # a file of their folder `configs`
    stand_ins: dict[str, ModuleType]  # what their code imports and is not installed
    activitynet: str | None = None  # their setting for ActivityNet, if they have one
    compiled: bool = True  # whether their losses are compiled, as they are; False: they can be in float64

    @cached_property
    def code(self) -> SimpleNamespace:
        """Their modules, imported once: their optimizer knows only layers of the same import."""
        names = {"core": "libs.core", "modeling": "libs.modeling", "utils": "libs.utils"}
        names["data"] = "libs.datasets.data_utils"
        script = torch.jit.script if self.compiled else lambda function: function
        with (
            importable(self.folder, "libs", stand_ins=self.stand_ins),
            patch.object(torch.jit, "script", script),
        ):
            return SimpleNamespace(**{key: importlib.import_module(name) for key, name in names.items()})

    def build(self, file: str | None = None, **changed) -> tuple[nn.Module, dict]:
        """Their model as its setting starts it, in training mode without drop path and noise; the setting."""
        setting = self.code.core.load_config(str(self.folder / "configs" / (file or self.setting)))
        torch.manual_seed(0)
        model = self.code.modeling.make_meta_arch(setting["model_name"], **setting["model"] | changed)
        model.input_noise = 0.0
        for module in model.modules():
            if hasattr(module, "drop_prob"):
                module.drop_prob = 0.0
        return model.train(), setting

    def started(self, theirs: nn.Module, preset: str = "paper", **options) -> models.Detector:
        """Our model for the same features and classes, with its own initial weights."""
        weights = theirs.state_dict()
        columns, classes = (
            weights["backbone.embd.0.conv.weight"].shape[1],
            len(weights["cls_head.cls_head.conv.weight"]),
        )
        return models.build(
            self.model, input_dim=columns, num_classes=classes, preset=preset, **options
        ).train()

    def ours(self, theirs: nn.Module, preset: str = "paper", **options) -> models.Detector:
        """Our model with their weights, in training mode without drop path."""
        weights, model = theirs.state_dict(), self.started(theirs, preset, **options)
        target = {key: value for key, value in model.state_dict().items() if key != "positives"}
        tensors, problems = _translated(weights, target)
        if problems:
            raise ValueError(f"{self.model}: {problems[:3]}")
        model.load_state_dict(tensors, strict=False)
        for module in model.modules():
            if isinstance(module, DropPath):
                module.rate = 0.0
        return model


def rows(clone: Clone) -> Iterator[Row]:
    """All rows of one model about its training."""
    yield from loss_rows(clone)
    yield from step_rows(clone)
    yield from start_rows(clone)
    yield from recipe_rows(clone)
    if clone.activitynet:
        yield from activitynet_rows(clone)


# the same recordings for both


def recordings(
    steps: int, columns: int, *, whole: bool = False, seed: int = 0, count: int = 2, classes: int = CLASSES
) -> Batch:
    """Random recordings without padding; segments of every length. whole: they begin and end on a step."""
    generator = torch.Generator().manual_seed(seed)
    items = []
    for index in range(count):
        centres = torch.rand(24, generator=generator) * steps
        lengths = 2 ** (1 + torch.rand(24, generator=generator) * 7)
        segments = torch.stack([centres - lengths / 2, centres + lengths / 2], 1).clamp(0, steps - 1)
        segments = segments.round() if whole else segments
        segments = segments[segments[:, 1] - segments[:, 0] >= 1]
        items.append(
            Item(
                recording=f"r{index}",
                features=torch.randn(columns, steps, generator=generator),
                duration=steps * STRIDE_FRAMES / 30,
                stride_s=STRIDE_FRAMES / 30,
                window_s=WINDOW_FRAMES / 30,
                classes=tuple(f"c{label}" for label in range(classes)),
                segments=segments,
                labels=torch.randint(classes, (len(segments),), generator=generator),
            )
        )
    return collate(items)


def their_form(batch: Batch) -> list[dict]:
    """A batch as their model takes it."""
    return [
        {"feats": features, "segments": segments.clone(), "labels": labels.clone()}
        for features, segments, labels in zip(batch.features, batch.segments, batch.labels)
    ]


def vary(model: nn.Module) -> None:
    """Random values in place of those that are equal at the start: norms, biases, scales, zero kernels."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.numel() == 1 or float(weight.std()) == 0:
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))


# losses and gradients


def loss_rows(clone: Clone) -> Iterator[Row]:
    """Class and regression loss, and their gradients, on recordings without padding."""
    theirs, _ = clone.build()
    vary(theirs)
    ours, start = clone.ours(theirs), theirs.loss_normalizer
    how = (
        "perturbed weights, 2 recordings of 2,304 steps, drop path and noise off; the difference is relative"
    )
    for case, whole, smoothing, learning in (
        ("segments anywhere", False, 0.0, True),
        ("segments on whole steps", True, 0.0, False),
        ("label smoothing 0.1", False, 0.1, False),
    ):
        batch = recordings(STEPS, ours.input_dim, whole=whole)
        theirs.loss_normalizer, theirs.train_label_smoothing = start, smoothing
        ours.positives.fill_(start)
        ours.config = replace(ours.config, label_smoothing=smoothing)
        with torch.set_grad_enabled(learning):
            published = theirs(their_form(batch))
            losses = ours.loss(ours.run(batch), batch)
        for name, key in (("class", "cls_loss"), ("regression", "reg_loss")):
            pair = [
                float(loss.detach())
                for loss in (losses["classification" if name == "class" else name], published[key])
            ]
            yield Row(clone.model, "loss", f"{name}, {case}", *pair, abs(pair[0] / pair[1] - 1), 1e-5, how)
        if not learning:
            continue
        for model, total in ((ours, losses["total"]), (theirs, published["final_loss"])):
            model.zero_grad()
            total.backward()
        yield from gradient_rows(clone.model, ours, theirs, how)
    yield from exact_gradient_rows(clone, how)


def gradient_rows(model: str, ours, theirs, how: str, *, case: str = "", limit=None, translate=None):
    """Of the first convolution and of the tensor furthest apart; theirs by `translate` in our layout.

    In float32 they have no limit: where values are nearly equal, rounding decides which one a maximum takes.
    """
    first, last, name = gradient_differences(ours, theirs, translate)
    yield Row(model, "gradient", f"first convolution{case}", *first, limit, how)
    how = f"{how}; the tensor is {name}"
    yield Row(model, "gradient", f"tensor furthest apart{case}", *last, limit, how)


def exact_gradient_rows(clone: Clone, how: str) -> Iterator[Row]:
    """The gradients in float64, which tell rounding from another formula."""
    clone = replace(clone, compiled=False)
    theirs, _ = clone.build(max_seq_len=EXACT_STEPS)
    vary(theirs)
    ours = clone.ours(theirs).double()
    theirs.double()
    batch = recordings(EXACT_STEPS, ours.input_dim)
    exact = replace(
        batch, features=batch.features.double(), segments=[each.double() for each in batch.segments]
    )
    with in_float64():  # both take the focal loss in float32
        ours.loss(ours.run(exact), exact)["total"].backward()
        theirs(their_form(exact))["final_loss"].backward()
    how = how.replace(f"{STEPS:,}", str(EXACT_STEPS))
    yield from gradient_rows(clone.model, ours, theirs, how, case=", float64", limit=1e-9)


Difference = tuple[float, float, float]


def gradient_differences(ours, theirs, translate=None) -> tuple[Difference, Difference, str]:
    """Of the first convolution and of the tensor furthest apart: largest value of ours, of theirs, and their
    relative difference. Then the name of that tensor.
    """
    translate = translate or (lambda tensors, target: _translated(tensors, target)[0])
    target = dict(ours.named_parameters())
    grads = {
        key: torch.zeros_like(value) if value.grad is None else value.grad
        for key, value in theirs.named_parameters()
    }
    published = translate(grads, target)
    table = []
    for key, value in published.items():
        grad = torch.zeros_like(value) if target[key].grad is None else target[key].grad
        largest = float(grad.abs().max()), float(value.abs().max())
        difference = largest_difference(grad, value)
        table.append((key, *largest, difference / max(largest[1], 1e-12) if difference else 0.0))
    first = next(row for row in table if row[0] == "embedding.0.conv.weight")
    # gradients that are zero but for rounding have no relative difference
    scale = max(row[2] for row in table)
    worst = max((row for row in table if row[2] > 1e-4 * scale), key=lambda row: row[3])
    return first[1:], worst[1:], worst[0]


# a small training


def step_rows(clone: Clone) -> Iterator[Row]:
    """Weights and averaged weights after a small training with their optimizer, schedule and average."""
    theirs, setting = clone.build(**SMALL)
    vary(theirs)
    ours = clone.ours(theirs, width=32, head_width=32)
    epochs = setting["opt"]["epochs"] + setting["opt"]["warmup_epochs"]
    per_epoch = -(-TRAINED // epochs)
    recipe = recipe_for(clone.model, "paper")
    optimizer = clone.code.utils.make_optimizer(theirs, setting["opt"])
    schedule = clone.code.utils.make_scheduler(optimizer, setting["opt"], per_epoch)
    average = clone.code.utils.ModelEma(theirs)
    our_optimizer = make_optimizer(ours, recipe)
    our_schedule = torch.optim.lr_scheduler.LambdaLR(
        our_optimizer, lambda step: learning_rate_factor(step, epochs * per_epoch, recipe)
    )
    our_average = Average(ours, recipe.ema, ramp=recipe.ema_ramp)
    for step in range(TRAINED):
        batch = recordings(SMALL["max_seq_len"], SMALL["input_dim"], seed=step)
        training_step(ours, batch, our_optimizer, recipe, make_scaler(recipe, "cpu"))
        our_schedule.step()
        our_average.update(our_schedule.last_epoch)
        optimizer.zero_grad(set_to_none=True)
        theirs(their_form(batch))["final_loss"].backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), setting["train_cfg"]["clip_grad_l2norm"])
        optimizer.step()
        schedule.step()
        average.update(theirs)
    how = f"width 32, 576 steps, their optimizer, schedule, clipping and average for {TRAINED} steps"
    for case, state, published in (
        ("weights", ours.state_dict(), theirs.state_dict()),
        ("averaged weights", our_average.state, average.module.state_dict()),
    ):
        target = {key: value for key, value in state.items() if key != "positives"}
        expected, _ = _translated(published, target)
        pairs = [(target[key], expected[key]) for key in target]
        largest = [max(float(pair[side].abs().max()) for pair in pairs) for side in (0, 1)]
        difference = largest_difference(*zip(*pairs))
        yield Row(clone.model, "recipe", f"{case} after {TRAINED} steps", *largest, difference, 1e-4, how)


# the start


def start_rows(clone: Clone) -> Iterator[Row]:
    """Initial weights: tensors that are constant, and the spread of the others."""
    theirs, _ = clone.build()
    published = theirs.state_dict()
    torch.manual_seed(1)
    ours = clone.started(theirs)
    target = {key: value for key, value in ours.state_dict().items() if key != "positives"}
    expected, _ = _translated(published, target)
    constant = [key for key, value in expected.items() if value.numel() == 1 or float(value.std()) == 0]
    other = [key for key in constant if not torch.allclose(target[key], expected[key], rtol=1e-6)]
    how = "both models as they start; how many tensors have another value"
    yield Row(
        clone.model,
        "recipe",
        "initial constants",
        len(constant) - len(other),
        len(constant),
        len(other),
        0,
        how,
    )
    apart = [
        abs(float(target[key].std() / expected[key].std()) - 1) * expected[key].numel() ** 0.5
        for key in expected
        if key not in constant
    ]
    how = "deviation of the ratio of standard deviations from 1, in units of 1/√n of the tensor's n weights"
    yield Row(clone.model, "recipe", "initial spread", len(apart), len(apart), max(apart), 5.0, how)


# the recipe


def recipe_rows(clone: Clone) -> Iterator[Row]:
    """Parameter groups, learning rates, crops, and annotations that are left out."""
    recipe = recipe_for(clone.model, "paper")
    theirs, setting = clone.build()
    ours = clone.ours(theirs)
    yield from group_rows(
        clone, ours, theirs, clone.code.utils.make_optimizer(theirs, setting["opt"]), recipe
    )
    yield schedule_row(clone, setting["opt"], clone.code.utils.make_scheduler, recipe)
    yield crop_row(clone, clone.code.data.truncate_feats, recipe)
    yield annotation_row(clone, clone.code.utils.remove_duplicate_annotations)
    yield setting_row(clone, "setting, THUMOS14", setting, recipe)


def setting_row(clone: Clone, case: str, setting: dict, recipe: Recipe) -> Row:
    """The numbers of their setting that the recipe has too."""
    options = {
        "batch_size": setting["loader"]["batch_size"],
        "epochs": setting["opt"]["epochs"] + setting["opt"]["warmup_epochs"],
        "weight_decay": setting["opt"]["weight_decay"],
        "clip_norm": setting["train_cfg"]["clip_grad_l2norm"],
        "max_steps": setting["dataset"]["max_seq_len"],
        "shrink": tuple(setting["dataset"]["crop_ratio"]),
        "feature_noise": setting["model"].get("input_noise", 0.0),
    }
    differing = [name for name, value in options.items() if getattr(recipe, name) != value]
    how = f"their setting: {', '.join(options)}; how many differ"
    same = len(options) - len(differing)
    return Row(clone.model, "recipe", case, same, len(options), len(differing), 0, how)


def activitynet_rows(clone: Clone) -> Iterator[Row]:
    """The same for their setting for ActivityNet: class-agnostic, with positions."""
    preset = "paper_activitynet"
    recipe = recipe_for(clone.model, preset)
    theirs, setting = clone.build(clone.activitynet)
    vary(theirs)
    ours = clone.ours(theirs, preset)
    batch = recordings(setting["dataset"]["max_seq_len"], ours.input_dim, classes=1)
    with torch.no_grad():
        published, losses = theirs(their_form(batch)), ours.loss(ours.run(batch), batch)
    how = f"same weights, 2 recordings of {batch.mask.shape[1]} steps, drop path and noise off; "
    how += "the difference is relative"
    for name, key in (("classification", "cls_loss"), ("regression", "reg_loss"), ("total", "final_loss")):
        pair = float(losses[name]), float(published[key])
        yield Row(clone.model, "loss", f"{name}, ActivityNet", *pair, abs(pair[0] / pair[1] - 1), 1e-5, how)
    yield schedule_row(clone, setting["opt"], clone.code.utils.make_scheduler, recipe, "ActivityNet")
    yield setting_row(clone, "setting, ActivityNet", setting, recipe)


def group_rows(clone, ours, theirs, optimizer, recipe) -> Iterator[Row]:
    """Which tensors weight decay shrinks, by name."""
    decayed = {id(weight) for weight in optimizer.param_groups[0]["params"]}
    names = {
        "scales.values" if key.startswith("reg_head.scale.") else _our_name(key)
        for key, value in theirs.named_parameters()
        if id(value) in decayed
    }
    shrunk = {id(weight) for weight in parameter_groups(ours, recipe)[0]["params"]}
    our_names = {key for key, value in ours.named_parameters() if id(value) in shrunk}
    how = "names of the tensors that their optimizer decays; how many are in one list only"
    yield Row(
        clone.model, "recipe", "decayed tensors", len(our_names), len(names), len(our_names ^ names), 0, how
    )


def schedule_row(clone, options, make_scheduler, recipe: Recipe, data: str = "THUMOS14") -> Row:
    """The learning rate of every step of a training."""
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=options["learning_rate"])
    schedule = make_scheduler(optimizer, options, STEPS_OF_EPOCH)
    total = (options["epochs"] + options["warmup_epochs"]) * STEPS_OF_EPOCH
    published, rates = [], []
    for step in range(total):
        published.append(schedule.get_last_lr()[0])
        rates.append(recipe.learning_rate * learning_rate_factor(step, total, recipe))
        optimizer.step()
        schedule.step()
    difference = max(abs(rate - other) for rate, other in zip(rates, published)) / max(published)
    how = f"every step of a training, {STEPS_OF_EPOCH} steps an epoch; relative to the highest rate"
    return Row(
        clone.model, "recipe", f"learning rate, {data}", sum(rates), sum(published), difference, 1e-6, how
    )


def crop_row(clone, truncate, recipe: Recipe) -> Row:
    """What is left of the segments of a crop, for the crops that our generator draws."""
    generator, most, count = torch.Generator().manual_seed(0), 0.0, [0, 0]
    for seed in range(200):
        steps = 2000 if seed % 2 else 3000  # shorter and longer than the longest crop
        (item,) = items_of(recordings(steps, 1, seed=seed, count=1))
        item = replace(item, features=torch.arange(steps, dtype=torch.float32)[None])
        ours = random_crop(item, recipe, generator)
        size, first = ours.features.shape[1], int(ours.features[0, 0])
        drawn = iter([first] if steps > recipe.max_steps else [size, first])
        data = {"feats": item.features, "segments": item.segments, "labels": item.labels}
        # TriDet's function has no offset
        offset = {"offset": WINDOW_FRAMES / 2 / STRIDE_FRAMES} if recipe.crop_reach == "window" else {}
        with patch.object(random, "randint", lambda *_: next(drawn)):
            theirs = truncate(data, recipe.max_steps, trunc_thresh=0.5, crop_ratio=recipe.shrink, **offset)
        count[0] += len(ours.labels)
        count[1] += len(theirs["labels"])
        if ours.labels.tolist() != theirs["labels"].tolist():
            most = float("inf")
        elif len(ours.labels):
            most = max(most, largest_difference(ours.segments, theirs["segments"]))
    how = "200 crops at the same place: segments kept, and their ends in steps"
    return Row(clone.model, "recipe", "segments of crops", *map(float, count), most, 1e-3, how)


def items_of(batch: Batch) -> list[Item]:
    """The recordings of a batch without padding."""
    return [
        Item(
            recording=recording,
            features=batch.features[index],
            duration=float(batch.durations[index]),
            stride_s=float(batch.stride_s[index]),
            window_s=float(batch.window_s[index]),
            classes=batch.classes,
            segments=batch.segments[index],
            labels=batch.labels[index],
        )
        for index, recording in enumerate(batch.recordings)
    ]


def annotation_row(clone, remove_duplicates) -> Row:
    """Annotations that their evaluation, and their training on ActivityNet, leaves out."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.rand((), generator=generator, dtype=torch.float64)
    starts = [float((draw() * 20).round() + 0.0008 * (draw() * 4).floor()) for _ in range(400)]
    lengths = [float((draw() * 3).floor() + 0.0007 * (draw() * 4).floor()) for _ in range(400)]
    table = pd.DataFrame(
        {
            "recording": [f"r{index % 3}" for index in range(400)],
            "start": starts,
            "end": [start + length for start, length in zip(starts, lengths)],
            "label": [f"c{index % 2}" for index in range(400)],
        }
    )
    # TriDet's function keeps short annotations, of which its evaluation drops the empty ones
    keeps_short = len(remove_duplicates([{"segment": [0, 1e-4], "label_id": 0}])) == 1
    if keeps_short:
        table = table[table.end - table.start >= 1e-3].reset_index(drop=True)
    kept = set()
    for _, group in table.groupby("recording"):
        events = [
            {"segment": [row.start, row.end], "label_id": row.label, "row": row.Index}
            for row in group.itertuples()
        ]
        kept |= {event["row"] for event in remove_duplicates(events)}
    ours = distinct_annotations(table.assign(row=table.index)).row
    how = "400 annotations near each other; how many only one of both keeps"
    how += "; their function keeps annotations below 1 ms, which are left out here" if keeps_short else ""
    return Row(
        clone.model, "recipe", "distinct annotations", len(ours), len(kept), len(kept ^ set(ours)), 0, how
    )
