"""TCANet beside qinzhi-0110/Temporal-Context-Aggregation-Network-Pytorch, on 100 steps of one second.

Their network, losses and soft-NMS run from the clone, on the CPU. Proposals are given; the generator is not
compared here (bmn.py does that).
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from experiments.authors import Row, importable, largest_difference, parameters, perturb
from experiments.authors.on_cpu import (
    Alone,
    gradient_row,
    in_new_folder,
    loss_row,
    macs_row,
    options,
    random_numbers,
    recipe_rows,
    step_recipe,
    suppressed_row,
    taps_first,
    time_row,
    without_gpu,
)
from tal_lib import models
from tal_lib.models.parts.candidates import Candidates, suppress
from tal_lib.models.tcanet import best_targets
from tal_lib.training import recipe_for

FOLDER = "TCANet"
MODELS = ("tcanet",)
FILES = ("tcanet", "tbr", "ttn", "lgte", "mha", "utils", "opts", "post_processing")
COLUMNS, STEPS, PROPOSALS = 400, 100, 64
COPIED = "weights perturbed and copied, the same proposals"
PARTS = ("base", "encoders", "regressors")
TRUTH = (
    torch.tensor([[9.5, 45.0], [59.7, 65.5], [70.5, 98.5]]),
    torch.tensor([[-0.5, 22.0], [29.5, 99.5]]),
)


def rows(clone: Path, model: str) -> Iterator[Row]:
    """All aspects at one size."""
    debugger = ModuleType("ipdb")
    debugger.set_trace = None  # pyright: ignore[reportAttributeAccessIssue]
    warnings.filterwarnings("ignore", message="Default grid_sample and affine_grid")
    with importable(clone, *FILES, stand_ins={"ipdb": debugger}), without_gpu():
        import opts  # pyright: ignore[reportMissingImports]
        import tcanet  # pyright: ignore[reportMissingImports]

        opt = options(opts.parse_opt)
        opt |= {"feat_dim": COLUMNS, "temporal_scale": STEPS, "temporal_interval": 1.0}
        torch.manual_seed(0)
        theirs, ours = pair(tcanet.TCANet("inference", opt), model)
        x = torch.randn(2, COLUMNS, STEPS, generator=torch.Generator().manual_seed(1))
        segments, scores = proposals()
        count = sum(parameters(getattr(ours, part)) for part in PARTS), parameters(theirs)
        difference = abs(count[0] - count[1])
        yield Row(model, "parameters", "without generator and classifier", *count, difference, 0.0, "counted")
        sizes = parameters(ours.regressors[0]), parameters(theirs.tbr1)
        difference = abs(sizes[0] - sizes[1])
        yield Row(model, "parameters", "one regressor", *sizes, difference, 0.0, "counted")
        first = segments[:1], scores[:1]
        yield macs_row(
            model,
            f"T = {STEPS}, {PROPOSALS} proposals, without generator and classifier",
            Alone([getattr(ours, part) for part in PARTS], lambda x: refined(ours, x, *first)),
            Alone([theirs], lambda x: their_stages(theirs, x, first[0])),
            COLUMNS,
            STEPS,
        )
        yield from forward_rows(model, ours, theirs, x, segments, scores)
        yield from loss_rows(model, ours, theirs, x, segments, scores)
        yield from decoding_rows(model, ours, theirs, x[:1], *first, opt)
        yield from recipe_rows(model, recipe(model, opt))
        with torch.no_grad():
            yield time_row(
                model,
                f"forward, T = {STEPS}, {PROPOSALS} proposals, batch 1",
                lambda: refined(ours, x[:1], *first),
                lambda: their_stages(theirs, x[:1], first[0]),
            )
        ours.training, theirs.mode = True, "training"
        yield time_row(
            model,
            f"training step, T = {STEPS}, {PROPOSALS} proposals, batch 2",
            lambda: sum(our_losses(ours, x, segments, scores)).backward(),
            lambda: their_losses(theirs, x, segments)["total_loss"].backward(),
        )


def proposals() -> tuple[Tensor, Tensor]:
    """Segments (2, P, 2) in steps around and beside the truth, and scores (2, P)."""
    generator = torch.Generator().manual_seed(2)
    near = torch.stack([truth[torch.arange(PROPOSALS // 2) % len(truth)] for truth in TRUTH])
    near = near + torch.randn(near.shape, generator=generator)
    start = torch.rand(2, PROPOSALS // 2, 1, generator=generator) * 80
    length = torch.rand(2, PROPOSALS // 2, 1, generator=generator) * 18 + 1
    segments = torch.cat([near, torch.cat([start, start + length], -1)], 1).clamp(-0.4, STEPS - 0.5)
    return segments, torch.rand(2, PROPOSALS, generator=generator) * 0.8 + 0.1


@torch.no_grad()
def pair(theirs: nn.Module, model: str):
    """Their perturbed model and ours with its weights, both in evaluation mode."""
    masks = [layer.self_atten.mask_matrix.clone() for layer in theirs.lgtes]
    perturb(theirs).eval()
    for layer, mask in zip(theirs.lgtes, masks):
        layer.self_atten.mask_matrix.copy_(mask)
    regressors = [theirs.tbr1, theirs.tbr2, theirs.tbr3]
    for regressor in regressors:  # small offsets, as of a trained model
        for convs in (regressor.reg1se.start_reg_conv, regressor.reg1se.end_reg_conv):
            convs[-1].weight.mul_(LAST_SCALE)
        regressor.reg1xw.reg_1d_o[-1].weight.mul_(LAST_SCALE)
    ours = models.build(model, input_dim=COLUMNS, num_classes=1, preset="paper_activitynet").eval()
    for index in (0, 1):
        their_conv = theirs.x_1d_b_f[2 * index]
        ours.base[index].weight.copy_(taps_first(their_conv.weight))
        ours.base[index].bias.copy_(their_conv.bias)
    for their_layer, our_layer in zip(theirs.lgtes, ours.encoders, strict=True):
        attention = their_layer.self_atten.scale_attention
        our_layer.qkv.weight.copy_(attention.in_proj_weight)
        our_layer.qkv.bias.copy_(attention.in_proj_bias)
        for name, part in (
            ("mix", attention.out_proj),
            ("grow", their_layer.linear1),
            ("shrink", their_layer.linear2),
            ("norm1", their_layer.norm1),
            ("norm2", their_layer.norm2),
        ):
            getattr(our_layer, name).load_state_dict(part.state_dict())
    for their_regressor, our_regressor in zip(regressors, ours.regressors, strict=True):
        copy_regressor(their_regressor, our_regressor)
    return theirs, ours


LAST_SCALE = 0.002


def copy_regressor(theirs, ours) -> None:
    """Weights of one boundary regressor."""
    sides = theirs.reg1se.start_reg_conv, theirs.reg1se.end_reg_conv
    copies = [(their_side[i], our_side[i]) for their_side, our_side in zip(sides, ours.ends) for i in (0, 2)]
    whole, joined = theirs.reg1xw.reg_1d_b, theirs.reg1xw.reg_1d_o
    copies += [(whole[0], ours.whole[0]), (whole[2], ours.whole[2]), (joined[0], ours.whole[4])]
    for their_conv, our_conv in copies:
        our_conv.load_state_dict(their_conv.state_dict())
    last = [(their_side[4], our_side[-1]) for their_side, our_side in zip(sides, ours.ends)]
    for their_conv, our_linear in [*last, (joined[2], ours.whole[-1])]:
        our_linear.weight.copy_(their_conv.weight.flatten(1))
        our_linear.bias.copy_(their_conv.bias)


def refined(ours, x: Tensor, segments: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Our refinements (B, P, 21), refined segments and scores, of features (B, D, T)."""
    context = ours.encode(x.transpose(1, 2), None)
    return ours.refined(context, segments, scores, torch.full((len(x),), STEPS))


def as_theirs(segments: Tensor) -> Tensor:
    """Segments (B, P, 2) in steps as proposals (B, P, 3) in seconds: a step's centre is half a step later."""
    return torch.cat([segments + 0.5, torch.zeros_like(segments[..., :1])], -1)


def their_stages(theirs, x: Tensor, segments: Tensor) -> tuple[Tensor, ...]:
    """Their refined proposals in seconds and confidences, of three refinements."""
    theirs.mode = "inference"
    output = theirs((x, torch.full((len(x),), STEPS), as_theirs(segments), None, None))
    return tuple(output[f"{name}{stage}"] for stage in (1, 2, 3) for name in ("proposals", "iou"))


@torch.no_grad()
def forward_rows(model, ours, theirs, x, segments, scores) -> Iterator[Row]:
    """The encoded context, and each refinement."""
    context = ours.encode(x.transpose(1, 2), None)
    theirs_context = theirs.x_1d_b_f(x)
    for layer in theirs.lgtes:
        theirs_context = layer(theirs_context)
    difference = largest_difference(context, theirs_context.transpose(1, 2))
    yield Row(model, "forward", f"context, T = {STEPS}", "", "", difference, 5e-5, COPIED)
    stages, final, _ = refined(ours, x, segments, scores)
    parts = stages.split(7, -1)
    ours_refined = [part[..., :2] for part in parts[1:]] + [final]
    their_outputs = their_stages(theirs, x, segments)
    for index in range(3):
        our_outputs = torch.cat(
            [ours_refined[index].flatten(0, 1) + 0.5, parts[index][..., 6:].sigmoid().flatten(0, 1)], 1
        )
        theirs_here = torch.cat([their_outputs[2 * index], their_outputs[2 * index + 1][:, None]], 1)
        difference = largest_difference(our_outputs, theirs_here)
        case = f"refinement {index + 1}: segments in s, confidences"
        yield Row(model, "forward", case, "", "", difference, 1e-4, COPIED)


def their_losses(theirs, x: Tensor, segments: Tensor) -> dict[str, Tensor]:
    """Their losses, in their training mode."""
    targets = best_targets(segments, TRUTH) + 0.5
    return theirs((x, torch.full((len(x),), STEPS), as_theirs(segments), targets, None))


def our_losses(ours, x: Tensor, segments: Tensor, scores: Tensor) -> list[Tensor]:
    """Our losses, one a refinement."""
    stages, _, _ = refined(ours, x, segments, scores)
    targets = best_targets(segments, TRUTH)
    return [
        ours.stage_loss(stage, scores > 0, targets, threshold)
        for stage, threshold in zip(stages.split(7, -1), ours.config.thresholds)
    ]


def loss_rows(model, ours, theirs, x, segments, scores) -> Iterator[Row]:
    """Losses, and the gradient of their sum."""
    ours.training, theirs.mode = True, "training"  # no dropout: the layers stay in evaluation mode
    generator = torch.Generator().manual_seed(3)
    draws = [torch.rand(scores.shape, generator=generator) for _ in range(6)]
    with random_numbers(draws, [draw.flatten() for draw in draws]):
        our_loss, their_loss = (
            our_losses(ours, x, segments, scores),
            their_losses(theirs, x, segments),
        )
    how = "training mode without dropout, the same draws of the overlap sampling"
    for stage, value in enumerate(our_loss, 1):
        theirs_here = their_loss[f"rloss{stage}"] + their_loss[f"iloss{stage}"]
        yield loss_row(model, f"refinement {stage}", value, theirs_here, how)
    (our_gradient,) = torch.autograd.grad(sum(our_loss), ours.base[0].weight)
    (their_gradient,) = torch.autograd.grad(their_loss["total_loss"], theirs.x_1d_b_f[0].weight)
    yield gradient_row(model, "first convolution", our_gradient, taps_first(their_gradient), how)
    ours.training, theirs.mode = False, "inference"


@torch.no_grad()
def decoding_rows(model, ours, theirs, x, segments, scores, opt) -> Iterator[Row]:
    """Scores, and what soft-NMS keeps."""
    import post_processing  # pyright: ignore[reportMissingImports]

    *_, their_segments, confidence = their_stages(theirs, x, segments)
    _, our_segments, our_scores = refined(ours, x, segments, scores)
    difference = largest_difference(our_scores[0], scores[0] * confidence)
    yield Row(model, "decoding", "scores before soft-NMS", "", "", difference, 1e-5, COPIED)
    columns = np.concatenate([their_segments / STEPS, scores[0][:, None], confidence[:, None]], 1)
    table = post_processing.pd.DataFrame(columns, columns=["xmin", "xmax", "ori_score", "preds_iou3"])
    with in_new_folder() as folder:
        (folder / "TCA_results").mkdir()
        table.to_csv(folder / "TCA_results" / "v.csv", index=False)
        post_processing.result_dict = {}
        here = opt | {"checkpoint_path": str(folder)}
        post_processing.video_post_process(here, ["v"], {"v": {"duration_second": STEPS}}, "TCA")
    kept = np.array([[*each["segment"], each["score"]] for each in post_processing.result_dict["v"]])
    labels = torch.zeros_like(our_scores[0], dtype=torch.long)
    candidates = Candidates(our_segments[0], our_scores[0], labels)
    result_segments, result_scores, _ = suppress(candidates, ours.config.post)
    result_segments = (result_segments + 0.5).clip(0, STEPS)
    result = np.concatenate([result_segments, result_scores[:, None]], 1)[: len(kept)]
    yield suppressed_row(
        model,
        result,
        kept,
        "seconds and scores of their video_post_process, in order; clipped afterwards in both",
    )


def recipe(model: str, opt: dict) -> dict:
    """Facts of the recipe, ours and theirs."""
    return step_recipe(
        recipe_for(model, "paper_activitynet"),
        "adamw",
        rate=opt["training_lr"],
        decay=opt["weight_decay"],
        epochs=opt["train_epochs"],
        batch=opt["batch_size"],
        # under their PyTorch 1.5, a scheduler that steps first is one epoch early
        first_drop=opt["step_size"] - 1,
        factor=opt["step_gamma"],
    )
