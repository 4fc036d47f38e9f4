"""BSN beside wzmsltw/BSN-boundary-sensitive-network.pytorch, the first author's, on ActivityNet's 100 steps.

Their networks, losses, proposals, features and soft-NMS run from the clone, on the CPU. Their code is of
Python 2: two divisions are made whole from outside, and `dataset.py`, which Python 3 cannot read, is left
out, so their targets are not run here.
"""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

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
    recipe_rows,
    step_recipe,
    suppressed_row,
    taps_first,
    time_row,
    without_gpu,
)
from tal_lib import models
from tal_lib.models.parts.candidates import Candidates, suppress
from tal_lib.models.parts.proposals import curve_targets
from tal_lib.segments import interval_iou
from tal_lib.training import recipe_for

FOLDER = "BSN"
MODELS = ("bsn",)
FILES = ("models", "loss_function", "pgm", "post_processing", "opts")
COLUMNS, STEPS = 400, 100
COPIED = "weights perturbed and copied"
CURVES = [1, 2, 0]  # theirs are action, start, end; ours start, end, action
SEGMENTS = [
    torch.tensor([[9.5, 45.0], [59.7, 65.5], [70.5, 98.5]]),
    torch.tensor([[-0.5, 22.0], [29.5, 99.5]]),
]


def rows(clone: Path, model: str) -> Iterator[Row]:
    """All aspects at their fixed size."""
    with importable(clone, *FILES), without_gpu():
        import loss_function  # pyright: ignore[reportMissingImports]
        import models as networks  # pyright: ignore[reportMissingImports]
        import opts  # pyright: ignore[reportMissingImports]

        opt = options(opts.parse_opt)
        torch.manual_seed(0)
        tem, pem = perturb(networks.TEM(opt)).eval(), perturb(networks.PEM(opt)).eval()
        ours = models.build(model, input_dim=COLUMNS, num_classes=1, preset="paper_activitynet").eval()
        copy_weights(tem, pem, ours)
        x = torch.randn(2, COLUMNS, STEPS, generator=torch.Generator().manual_seed(1))
        count = sum(map(parameters, network_of(ours))), parameters(tem) + parameters(pem)
        difference = abs(count[0] - count[1])
        yield Row(model, "parameters", "without classifier", *count, difference, 0.0, "counted")
        features = torch.zeros(ours.config.proposals, 32)
        yield macs_row(
            model,
            f"T = {STEPS}, {len(features)} proposals, without classifier",
            Alone(network_of(ours), lambda x: windows(ours, x)[1:]),
            Alone([tem, pem], lambda x: (tem(x), pem(features))),
            COLUMNS,
            STEPS,
        )
        yield from forward_rows(model, ours, tem, x)
        yield from loss_rows(model, ours, tem, pem, x, loss_function, opt)
        yield from decoding_rows(model, ours, tem, pem, x[:1], opt)
        yield from recipe_rows(model, recipe(model, opt))
        with torch.no_grad():
            yield time_row(
                model,
                f"both networks, T = {STEPS}, {len(features)} proposals, batch 1",
                lambda: windows(ours, x[:1]),
                lambda: (tem(x[:1]), pem(features)),
            )


@torch.no_grad()
def copy_weights(tem, pem, ours) -> None:
    """Their weights in our layout and our order of the curves and of the samples."""
    for their_conv, our_conv in zip((tem.conv1, tem.conv2), ours.convs, strict=True):
        our_conv.weight.copy_(taps_first(their_conv.weight))
        our_conv.bias.copy_(their_conv.bias)
    ours.out.weight.copy_(taps_first(tem.conv3.weight[CURVES]))
    ours.out.bias.copy_(tem.conv3.bias[CURVES])
    inside, start, end = pem.fc1.weight.split([16, 8, 8], 1)
    ours.hidden.weight.copy_(torch.cat([start, inside, end], 1))
    ours.hidden.bias.copy_(pem.fc1.bias)
    ours.confidence.load_state_dict(pem.fc2.state_dict())


def network_of(ours) -> list[nn.Module]:
    """Our modules without the classifier of proposals."""
    return [module for name, module in ours.named_children() if name != "classifier"]


def windows(ours, x: Tensor):
    """Our outputs, segments and scores of features (B, D, T)."""
    return ours.windows(x.transpose(1, 2), x.new_ones(len(x), STEPS, 1))


@torch.no_grad()
def forward_rows(model, ours, tem, x) -> Iterator[Row]:
    """The three curves."""
    (logits, *_), _, _ = windows(ours, x)
    difference = largest_difference(logits.sigmoid(), tem(x)[:, CURVES].transpose(1, 2))
    yield Row(model, "forward", f"curves, T = {STEPS}", "", "", difference, 1e-5, f"probabilities; {COPIED}")


def loss_rows(model, ours, tem, pem, x, loss_function, opt) -> Iterator[Row]:
    """Both losses, and the gradient of that of the curves."""
    outputs, segments, _ = windows(ours, x)
    our_loss = ours.proposal_loss(outputs, SEGMENTS, torch.ones(len(x), STEPS, dtype=torch.bool))
    c = ours.config
    targets = torch.stack(
        [curve_targets(each, STEPS, c.boundary, c.least_boundary)[:, [2, 0, 1]] for each in SEGMENTS]
    )
    their_curves = tem(x)
    curves = loss_function.TEM_loss_function(*targets.unbind(-1), their_curves, opt)["cost"]
    how = "our targets in both (theirs cannot be read by Python 3)"
    added = f"{how}; they add 1e-5 inside the logarithm"
    yield loss_row(model, "curves", our_loss["curves"], curves, added, relative=1e-4)
    (our_gradient,) = torch.autograd.grad(our_loss["curves"], ours.convs[0].weight)
    (their_gradient,) = torch.autograd.grad(curves, tem.conv1.weight)
    yield gradient_row(model, "first convolution", our_gradient, taps_first(their_gradient), how)
    sampled = ours.proposal_features(outputs[0].sigmoid().detach(), segments)
    start, inside, end = sampled.split([8, 16, 8], -1)
    overlap = torch.stack(
        [interval_iou(each[:, None], truth[None]).amax(1) for each, truth in zip(segments, SEGMENTS)]
    )
    exists = outputs[2] > 0
    network = SimpleNamespace(module=pem)
    confidence = loss_function.PEM_loss_function(
        pem(torch.cat([inside, start, end], -1)[exists]), overlap[exists], network, opt
    )
    yield loss_row(
        model, "confidence", our_loss["confidence"], confidence, "our features and overlaps in both"
    )


class WholeNumbers:
    """Their numpy, whose `zeros` takes the results of Python 2's divisions of whole numbers."""

    def __getattr__(self, name):
        return getattr(np, name)

    @staticmethod
    def zeros(shape):
        return np.zeros(np.asarray(shape, dtype=int))


@torch.no_grad()
def decoding_rows(model, ours, tem, pem, x, opt) -> Iterator[Row]:
    """Their proposals and features of one recording, confidences and soft-NMS, beside ours."""
    import pgm  # pyright: ignore[reportMissingImports]
    import post_processing  # pyright: ignore[reportMissingImports]

    pgm.numpy, pgm.range = WholeNumbers(), lambda *bounds: range(*map(int, bounds))
    video = {
        "subset": "validation",
        "duration_frame": STEPS,
        "duration_second": STEPS,
        "feature_frame": STEPS,
        "annotations": [],
    }
    curves = tem(x)[0].T.numpy()
    edges = np.arange(STEPS)[:, None] / STEPS
    with in_new_folder():
        for name in ("TEM_results", "PGM_proposals", "PGM_feature", "PEM_results"):
            Path("output", name).mkdir(parents=True)
        table = pgm.pandas.DataFrame(
            np.concatenate([curves, edges, edges + 1 / STEPS], 1),
            columns=["action", "start", "end", "xmin", "xmax"],
        )
        table.to_csv("output/TEM_results/v.csv", index=False)
        pgm.generateProposals(opt, ["v"], {"v": video})
        pgm.generateFeature(opt, ["v"], {"v": video})
        proposals = pgm.pandas.read_csv("output/PGM_proposals/v.csv")
        features = np.load("output/PGM_feature/v.npy")
        proposals = proposals[: len(features)]
        confidence = pem(torch.tensor(features).float())[:, 0].numpy()
        proposals.assign(iou_score=confidence).to_csv("output/PEM_results/v.csv", index=False)
        post_processing.result_dict = {}
        post_processing.video_post_process(opt, ["v"], {"v": video})
    kept = next(iter(post_processing.result_dict.values()))
    (_, segments, pairs, _), _, scores = windows(ours, x)
    exists = pairs[0] > 0
    segments, pairs, scores = segments[0][exists], pairs[0][exists], scores[0][exists]
    theirs = proposals.to_numpy()[:, [0, 1, 4]]
    ours_here = np.concatenate([(segments + 0.5) / STEPS, pairs[:, None]], 1)
    by_segment = lambda table: table[np.lexsort(table[:, :2].round(4).T)]
    yield Row(
        model,
        "decoding",
        "pairs of boundaries and start × end",
        len(ours_here),
        len(theirs),
        float(np.abs(by_segment(ours_here) - by_segment(theirs)).max()),
        1e-5,
        "their generateProposals, the best 1,000",
    )
    ours_scored = np.concatenate([ours_here[:, :2], scores[:, None]], 1)
    theirs_scored = np.concatenate([theirs[:, :2], (theirs[:, 2] * confidence)[:, None]], 1)
    yield Row(
        model,
        "decoding",
        "scores before soft-NMS",
        len(ours_scored),
        len(theirs_scored),
        float(np.abs(by_segment(ours_scored) - by_segment(theirs_scored)).max()),
        1e-5,
        "their generateFeature and PEM",
    )
    candidates = Candidates(segments, scores, torch.zeros(len(scores), dtype=torch.long))
    final_segments, final_scores, _ = suppress(candidates, ours.config.post)
    result = np.concatenate([final_segments + 0.5, final_scores[:, None]], 1)
    kept = np.array([[*each["segment"], each["score"]] for each in kept])
    yield suppressed_row(model, result, kept, "seconds and scores of their video_post_process, in order")


def recipe(model: str, opt: dict) -> dict:
    """Facts of the recipe, ours and theirs."""
    return step_recipe(
        recipe_for(model, "paper_activitynet"),
        "adam",
        rate=opt["tem_training_lr"],
        decay=opt["tem_weight_decay"],
        epochs=opt["tem_epoch"],
        batch=opt["tem_batch_size"],
        first_drop=opt["tem_step_size"],
        factor=opt["tem_step_gamma"],
        of=" of the curves",
    )
