"""BMN beside JJBOY/BMN-Boundary-Matching-Network, on ActivityNet's 100 steps.

Their model, losses, targets, inference and soft-NMS run from the clone, on the CPU.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

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
    taps_first,
    time_row,
    without_gpu,
)
from tal_lib import models
from tal_lib.models.parts.candidates import suppress
from tal_lib.training import recipe_for

FOLDER = "BMN"
MODELS = ("bmn",)
FILES = ("main", "models", "loss_function", "dataset", "post_processing", "opts", "utils", "eval")
COLUMNS, STEPS, CLASSES = 400, 100, 200
COPIED = "weights perturbed and copied"
# segments of two recordings, in steps; the second touches both edges
SEGMENTS = [
    torch.tensor([[10.0, 45.5], [60.2, 66.0], [71.0, 99.0]]),
    torch.tensor([[0.0, 22.5], [30.0, 100.0]]),
]


def rows(clone: Path, model: str) -> Iterator[Row]:
    """All aspects at their fixed size."""
    with importable(clone, *FILES, stand_ins={"eval": evaluation_stand_in()}), without_gpu():
        import main  # pyright: ignore[reportMissingImports]

        opt = options(main.opts.parse_opt)
        torch.manual_seed(0)
        theirs, ours = pair(main.BMN(opt), model)
        x = torch.randn(2, COLUMNS, STEPS, generator=torch.Generator().manual_seed(1))
        count = sum(map(parameters, network_of(ours))), parameters(theirs)
        yield Row(model, "parameters", "without classifier", *count, abs(count[0] - count[1]), 0.0, "counted")
        yield macs_row(
            model,
            f"T = {STEPS}, without classifier",
            Alone(network_of(ours), lambda features: outputs_of(ours, features)),
            Alone([theirs], theirs),
            COLUMNS,
            STEPS,
        )
        yield from forward_rows(model, ours, theirs, x)
        yield from loss_rows(model, ours, theirs, x, main, opt)
        yield from decoding_rows(model, ours, theirs, x[:1], main, opt)
        yield from recipe_rows(model, recipe(model, opt))
        with torch.no_grad():
            yield time_row(
                model,
                f"forward, T = {STEPS}, batch 1",
                lambda: outputs_of(ours, x[:1]),
                lambda: theirs(x[:1]),
            )
        yield time_row(
            model,
            f"training step, T = {STEPS}, batch 2",
            lambda: our_step(ours, x),
            lambda: their_step(theirs, x, main),
            repeats=1,
        )


def evaluation_stand_in() -> ModuleType:
    """Their evaluation draws figures and is not compared here."""
    module = ModuleType("eval")
    module.evaluation_proposal = None  # pyright: ignore[reportAttributeAccessIssue]
    return module


def pair(theirs: nn.Module, model: str):
    """Their perturbed model and ours with its weights, both in evaluation mode."""
    mask = theirs.sample_mask.detach().clone()
    perturb(theirs).eval()
    theirs.sample_mask.data.copy_(mask)
    spread_logits(theirs)
    ours = models.build(model, input_dim=COLUMNS, num_classes=CLASSES, preset="paper_activitynet").eval()
    copy_weights(theirs, ours)
    return theirs, ours


@torch.no_grad()
def spread_logits(theirs) -> None:
    """Give the map's logits mean 0 and deviation 1: perturbed weights would make each probability 0 or 1."""
    last, seen = theirs.x_2d_p[6], []
    hook = last.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    theirs(torch.randn(1, COLUMNS, STEPS, generator=torch.Generator().manual_seed(1)))
    hook.remove()
    inside = seen[0][0][:, torch.ones(STEPS, STEPS).triu() > 0]  # (2, pairs)
    mean, deviation = inside.mean(1), inside.std(1)
    last.weight.div_(deviation[:, None, None, None])
    last.bias.sub_(mean).div_(deviation)


@torch.no_grad()
def copy_weights(theirs, ours) -> None:
    """Their weights in our layout; their first map is the regression, ours the classification."""
    convolutions = [
        (theirs.x_1d_b[0], ours.base[0]),
        (theirs.x_1d_b[2], ours.base[1]),
        (theirs.x_1d_s[0], ours.curves[0][0]),
        (theirs.x_1d_s[2], ours.curves[0][1]),
        (theirs.x_1d_e[0], ours.curves[1][0]),
        (theirs.x_1d_e[2], ours.curves[1][1]),
        (theirs.x_1d_p[0], ours.proposal_conv),
    ]
    for their_conv, our_conv in convolutions:
        our_conv.weight.copy_(taps_first(their_conv.weight))
        our_conv.bias.copy_(their_conv.bias)
    points = theirs.x_3d_p[0]
    ours.matching.weight.copy_(points.weight[..., 0, 0].permute(1, 2, 0).flatten(1))
    ours.matching.bias.copy_(points.bias)
    first, *middle, last = theirs.x_2d_p[0:8:2]
    for their_conv, our_layer, order in ((first, ours.maps.reduce, [...]), (last, ours.maps.out, [[1, 0]])):
        our_layer.weight.copy_(their_conv.weight[..., 0, 0][order[0]])
        our_layer.bias.copy_(their_conv.bias[order[0]])
    for their_conv, our_conv in zip(middle, ours.maps.convs, strict=True):
        our_conv.load_state_dict(their_conv.state_dict())


def network_of(ours) -> list[nn.Module]:
    """Our modules without the classifier of proposals."""
    return [module for name, module in ours.named_children() if name != "classifier"]


def outputs_of(ours, features: Tensor) -> tuple[Tensor, Tensor]:
    """Our curve logits (B, T, 2) and map logits (B, T, D, 2) of features (B, D, T)."""
    x, keep = features.transpose(1, 2), features.new_ones(len(features), STEPS, 1)
    x = ours.encode(x, keep)
    return ours.boundary_curves(x, keep), ours.confidence(x, keep)


def in_durations(end_map: Tensor) -> Tensor:
    """Their maps (..., start, last step) as ours (..., start, duration), zero behind the window."""
    start = torch.arange(STEPS)[:, None]
    last = start + torch.arange(STEPS)
    return torch.where(last < STEPS, end_map[..., start, last.clamp(max=STEPS - 1)], 0.0)


@torch.no_grad()
def forward_rows(model, ours, theirs, x) -> Iterator[Row]:
    """Curves and maps."""
    maps, start, end = theirs(x)
    our_curves, our_maps = (output.sigmoid() for output in outputs_of(ours, x))
    difference = largest_difference(our_curves, torch.stack([start, end], -1))
    how = f"probabilities; {COPIED}"
    yield Row(model, "forward", f"curves, T = {STEPS}", "", "", difference, 1e-5, how)
    inside = in_durations(torch.ones(STEPS, STEPS))[..., None]
    their_maps = in_durations(maps.flip(1)).permute(0, 2, 3, 1)
    difference = largest_difference(our_maps * inside, their_maps)
    yield Row(model, "forward", f"maps, T = {STEPS}", "", "", difference, 1e-5, how)


def their_targets(main) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Start, end and map targets of SEGMENTS from their dataset; a step is one second."""
    targets = []
    for segments in SEGMENTS:
        dataset = main.VideoDataSet.__new__(main.VideoDataSet)
        dataset.temporal_scale, dataset.temporal_gap = STEPS, 1 / STEPS
        dataset.video_list = ["v"]
        annotations = [{"segment": segment} for segment in segments.tolist()]
        dataset.video_dict = {
            "v": {
                "duration_frame": STEPS,
                "duration_second": STEPS,
                "feature_frame": STEPS,
                "annotations": annotations,
            }
        }
        edges = [[(i + side) / STEPS for i in range(STEPS)] for side in (-0.5, 0.5)]
        targets.append(dataset._get_train_label(0, *edges))
    return targets


def their_losses(theirs, x, main) -> dict[str, Tensor]:
    """Their losses by our names."""
    start, end, overlap = (torch.stack(part) for part in zip(*their_targets(main)))
    mask = __import__("loss_function").get_mask(STEPS)
    maps, *curves = theirs(x)
    _, tem, regression, classification = main.bmn_loss_func(maps, *curves, overlap, start, end, mask)
    return {"curves": tem, "map_classification": classification, "map_regression": 10 * regression}


def our_losses(ours, x) -> dict[str, Tensor]:
    """Our losses."""
    return ours.proposal_loss(outputs_of(ours, x), SEGMENTS, torch.ones(len(x), STEPS, dtype=torch.bool))


def loss_rows(model, ours, theirs, x, main, opt) -> Iterator[Row]:
    """Losses, and the gradient of their sum."""
    generator = torch.Generator().manual_seed(3)
    draws = [torch.rand(len(x), STEPS, STEPS, generator=generator) for _ in range(2)]
    with random_numbers([in_durations(draw) for draw in draws], draws):
        our_loss, their_loss = our_losses(ours, x), their_losses(theirs, x, main)
    how = "their targets of the same segments, the same draws of the overlap sampling"
    for name, value in our_loss.items():
        yield loss_row(model, name, value, their_loss[name], how)
    ours_first, theirs_first = ours.base[0].weight, theirs.x_1d_b[0].weight
    (our_gradient,) = torch.autograd.grad(sum(our_loss.values()), ours_first)
    (their_gradient,) = torch.autograd.grad(sum(their_loss.values()), theirs_first)
    yield gradient_row(model, "first convolution", our_gradient, taps_first(their_gradient), how)


@torch.no_grad()
def decoding_rows(model, ours, theirs, x, main, opt) -> Iterator[Row]:
    """Their whole inference of one recording of 100 s, beside our proposals."""
    pairs, kept = their_proposals(theirs, x, main, opt)
    for count in (STEPS * STEPS, ours.config.proposals):
        network = models.build(
            model, input_dim=COLUMNS, num_classes=CLASSES, preset="paper_activitynet", proposals=count
        ).eval()
        network.load_state_dict(ours.state_dict())
        _, segments, scores = network.windows(x.transpose(1, 2), x.new_ones(1, STEPS, 1))
        exists = scores[0] > 0
        segments, scores = segments[0][exists], scores[0][exists]
        case = f"best {len(scores)} of {len(pairs)} pairs"
        best = pairs[np.argsort(-pairs[:, 2], kind="stable")[: len(scores)]]
        yield Row(
            model,
            "decoding",
            f"{case}, before soft-NMS",
            len(scores),
            len(pairs),
            float(np.abs(best[:, 2] - scores.numpy()).max()),
            1e-5,
            "scores of their BMN_inference, in order",
        )
        candidates = models.parts.candidates.Candidates(segments, scores, torch.zeros(len(scores)).long())
        post = replace(network.config.post, score_threshold=0.0)
        our_segments, our_scores, _ = suppress(candidates, post)
        result = np.concatenate([our_segments, our_scores[:, None]], 1)
        same = (np.abs(result[:, None] - kept[None]).max(2) < 1e-4).any(0)
        if len(scores) == len(pairs):
            limit, how = (
                3.0,
                "their kept proposals that we do not keep; a tIoU at a threshold may round up there",
            )
        else:
            limit, how = None, "the same; random weights, so that scores hardly differ"
        yield Row(
            model,
            "decoding",
            f"{case}, after soft-NMS",
            len(result),
            len(kept),
            float((~same).sum()),
            limit,
            how,
        )


def their_proposals(theirs, x, main, opt) -> tuple[np.ndarray, np.ndarray]:
    """Pairs and what soft-NMS keeps, (N, 3) each: start, end in seconds (100 in all), score."""
    data = SimpleNamespace(video_list=["v"])
    loader = lambda *_, **__: LoaderOf(data, [(torch.tensor([0]), x)])
    post = __import__("post_processing")
    video = {"duration_frame": 1600, "duration_second": float(STEPS)}
    with in_new_folder():
        Path("output/BMN_results").mkdir(parents=True)
        with (
            mock.patch.object(main, "VideoDataSet", lambda *_, **__: data),
            mock.patch.object(main, "BMN", lambda _: theirs),
            mock.patch.object(torch, "load", lambda _: {"state_dict": theirs.state_dict()}),
            mock.patch.object(torch.utils.data, "DataLoader", loader),
        ):
            main.BMN_inference(opt)
            post.result_dict = {}
            post.video_post_process(opt, ["v"], {"v": video})
        table = main.pd.read_csv("output/BMN_results/v.csv")
        pairs = table[["xmin", "xmax", "score"]].to_numpy() * [STEPS, STEPS, 1]
    kept = [[*each["segment"], each["score"]] for each in next(iter(post.result_dict.values()))]
    return pairs, np.array(kept)


class LoaderOf(list):
    """A data loader of ready batches."""

    def __init__(self, dataset, batches):
        super().__init__(batches)
        self.dataset = dataset


def recipe(model: str, opt: dict) -> dict:
    """Facts of the recipe, ours and theirs."""
    return step_recipe(
        recipe_for(model, "paper_activitynet"),
        "adam",
        rate=opt["training_lr"],
        decay=opt["weight_decay"],
        epochs=opt["train_epochs"],
        batch=opt["batch_size"],
        first_drop=opt["step_size"],
        factor=opt["step_gamma"],
    )


def our_step(ours, x) -> None:
    """Our forward and backward pass."""
    ours.zero_grad()
    sum(our_losses(ours, x).values()).backward()


def their_step(theirs, x, main) -> None:
    """Theirs."""
    theirs.zero_grad()
    sum(their_losses(theirs, x, main).values()).backward()
