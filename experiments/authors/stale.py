"""STALE beside sauradip/STALE: parameters, MACs, outputs, losses and gradients of windows, and soft-NMS.

FOLDER is a clone of their repository with a clone of facebookresearch/MaskFormer inside, and the files of
their `extra_file` copied over, as their README says. Stand-ins replace what a CPU without the network lacks:
CLIP (both models get the same random vectors as texts), detectron2 (a decorator, and torch's own convolution)
and the lists of classes, which they do not publish. fvcore and joblib are needed.
"""

from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from experiments.authors import Row, importable, in_float64, largest_difference, parameters, perturb
from tal_lib import models
from tal_lib.cost.macs import count_call
from tal_lib.data.batches import Item, collate
from tal_lib.models.parts.candidates import Candidates, suppress

FOLDER = "STALE"
MODELS = ("stale",)
STEPS, WIDTH, CLASSES = 100, 512, 150  # of their 75/25 split
DRAWN = 300  # segments of which soft-NMS keeps 100
HOW = "weights perturbed and copied; random unit vectors in place of CLIP's; dropout off"
# in their class, but not in their forward pass
UNUSED = ("txt_model.", "proj.", "contexts", "classifier.", "bn1.", "reduce_mask.", "mask_MLP.")


class Texts(nn.Module):
    """Stands in for CLIP and its tokenizer: one fixed vector a sentence."""

    vectors = nn.functional.normalize(
        torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(7)), dim=-1
    )

    @classmethod
    def from_pretrained(cls, name):
        """An instance; nothing is loaded."""
        return cls()

    def forward(self, sentences, **options):
        """What the tokenizer gives, which `get_text_features` ignores."""
        return type("Tokens", (dict,), {"to": lambda tokens, device: tokens})()

    def get_text_features(self, **tokens) -> Tensor:
        """The vectors (K, E)."""
        return self.vectors


@contextmanager
def their_modules(clone: Path) -> Iterator[tuple[ModuleType, ModuleType, ModuleType]]:
    """Their modules of the model, of the loss and of the post-processing."""
    transformer = "MaskFormer.mask_former.modeling.transformer"
    names = ["detectron2", "detectron2.config", "detectron2.layers", "transformers", "config.zero_shot"]
    packages = [transformer.rsplit(".", count)[0] for count in (3, 2, 1, 0)]
    stand_ins = {name: ModuleType(name) for name in (*names, *packages)}
    for name in packages:  # packages whose __init__ would import detectron2's data sets
        stand_ins[name].__path__ = [str(clone.joinpath(*name.split(".")))]
    vars(stand_ins["detectron2.config"])["configurable"] = lambda function: function
    vars(stand_ins["detectron2.layers"])["Conv2d"] = nn.Conv2d
    for name in ("CLIPTokenizer", "CLIPModel", "CLIPTextModel", "CLIPTextConfig"):
        vars(stand_ins["transformers"])[name] = Texts
    for name, count in (("t1", CLASSES), ("t2", 100)):  # classes of their splits: 75/25, 50/50
        for part in ("train", "test"):
            vars(stand_ins["config.zero_shot"])[f"{name}_dict_{part}"] = {str(k): k for k in range(count)}
            vars(stand_ins["config.zero_shot"])[f"split_{name}_{part}"] = [str(k) for k in range(count)]
    here = lambda value, *device: value
    with (
        importable(clone, "stale_model", "stale_lib", "config", "utils", "MaskFormer", stand_ins=stand_ins),
        chdir(clone),  # they read ./config/anet.yaml
        mock.patch.object(torch.Tensor, "cuda", here),
        mock.patch.object(nn.Module, "cuda", here),
    ):
        import stale_lib.loss_stale as loss  # pyright: ignore[reportMissingImports]
        import stale_model as model  # pyright: ignore[reportMissingImports]
        import utils.postprocess_utils as post  # pyright: ignore[reportMissingImports]

        yield model, loss, post


def our_tensors(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of their model by our names and in our layout."""
    tensors, split = {}, {}
    for key, value in theirs.items():
        if key.startswith(UNUSED):
            continue
        for name, our_name in (
            ("embedding.", "snippet."),
            ("cross_att.", "adapter."),
            ("w_qs.", "query."),
            ("w_ks.", "key."),
            ("w_vs.", "value."),
            ("fc.", "out."),
            ("layer_norm.", "norm."),
            ("bg_embeddings", "background"),
            ("localizer_mask.0.", "mask_conv."),
            ("localizer_mask.2.", "mask_out."),
            ("masktrans.query_embed.weight", "foreground.query"),
            ("masktrans.input_proj.", "foreground.project."),
            ("masktrans.mask_embed.layers.", "foreground.mask_embedding."),
            ("masktrans.transformer.encoder.norm.", "foreground.encoder_norm."),
            ("masktrans.transformer.decoder.norm.", "foreground.decoder_norm."),
            ("masktrans.transformer.encoder.layers.", "foreground.encoder."),
            ("masktrans.transformer.decoder.layers.", "foreground.decoder."),
            (".self_attn.", ".attention."),
            (".multihead_attn.", ".reading."),
            ("out_proj.", "out."),
            (".linear1.", ".mlp_in."),
            (".linear2.", ".mlp_out."),
            (".norm1.", ".attention.norm."),
        ):
            key = key.replace(name, our_name)
        decoder = "foreground.decoder." in key
        key = key.replace(".norm2.", ".reading.norm." if decoder else ".norm.").replace(".norm3.", ".norm.")
        if "in_proj_" in key:
            split[key] = value
        elif key.startswith("mask_") and value.ndim == 3:
            tensors[key] = value.permute(2, 1, 0)
        else:
            tensors[key] = value[..., 0, 0] if value.ndim == 4 else value
    for key, value in split.items():
        for name, part in zip(("query", "key", "value"), value.chunk(3)):
            tensors[key.replace("in_proj_", f"{name}.")] = part
    tensors["foreground.query"] = tensors["foreground.query"][None]
    return tensors


def rows(clone: Path, model: str) -> Iterator[Row]:
    """Parameters, outputs, losses and gradients of both models."""
    with their_modules(clone) as (modeling, losses, post):
        torch.manual_seed(0)
        theirs = perturb(modeling.STALE()).eval()
        with (
            torch.no_grad()
        ):  # smaller foreground logits: their sigmoid saturates, and their loss clamps at 100
            for weight in theirs.masktrans.mask_embed.layers[2].parameters():
                weight.mul_(0.02)
        ours = models.build(model, input_dim=WIDTH, num_classes=CLASSES, preset="paper").eval()
        ours.text = Texts.vectors.clone()
        fixed = {"text": ours.text, "similarity.log_scale": ours.similarity.log_scale}
        ours.load_state_dict(our_tensors(theirs.state_dict()) | fixed)
        used = sum(p.numel() for name, p in theirs.named_parameters() if not name.startswith(UNUSED))
        count = parameters(ours), used
        how = "counted, without CLIP and without what their forward pass never calls"
        yield Row(model, "parameters", f"K = {CLASSES}", *count, abs(count[0] - count[1]), 0.0, how)
        yield macs_row(theirs, ours, model)
        yield from suppression_rows(post, ours, model)
        yield from numbers(theirs, ours, losses, model)
        yield Row(
            model,
            "recipe",
            "soft-NMS of tIoU 0.5, times 0.6",
            float(torch.tensor(-0.25 / ours.config.post.nms_sigma).exp()),
            float(torch.tensor(-0.25 * 10).exp()),
            0.0,
            None,
            "their factor is divided by 0.6, which raises the scores of slight overlaps; ours is not",
        )


def numbers(theirs, ours, losses: ModuleType, model: str) -> Iterator[Row]:
    """Outputs, losses and gradients on the same windows and targets."""
    outputs, reference, our_losses, published = learned(theirs, ours, losses)
    scores, masks, foreground, window, features = reference
    compared = {
        "class scores": (outputs[0], scores.transpose(1, 2)),
        "masks": (outputs[2].sigmoid(), masks),
        "foreground": (outputs[1].sigmoid(), foreground),
        "window's classes": (outputs[4], window),
        "features": (outputs[3], features.transpose(1, 2)),
    }
    for case, pair in compared.items():
        difference = largest_difference(*(each.detach() for each in pair))
        yield Row(model, "forward", case, "", "", difference, 1e-3 if "class" in case else 1e-4, HOW)
    for name, value in published.items():
        pair = float(our_losses[name].detach()), float(value.detach())
        yield Row(model, "loss", name, *pair, abs(pair[0] - pair[1]), 1e-4, f"{HOW}; targets the same")
    yield from gradient_rows(theirs, ours, our_losses["total"], published["total"], model)
    with (
        in_float64(),
        mock.patch.object(Texts, "vectors", Texts.vectors.double()),
    ):
        ours.text = Texts.vectors
        _, _, our_losses, published = learned(theirs.double(), ours.double(), losses)
        totals = our_losses["total"], published["total"]
        yield from gradient_rows(theirs, ours, *totals, model, ", float64", 1e-5)


def learned(theirs, ours, losses: ModuleType):
    """Outputs of ours and of theirs, losses of ours and of theirs, of the same windows and targets."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, WIDTH, STEPS, generator=generator).to(ours.text)
    batch = collate([item(features, index) for index, features in enumerate(x)])
    batch = replace(batch, features=x)
    ours.class_names = batch.classes  # their texts are set already
    outputs, reference = ours.run(batch), theirs(x, "train")
    scores, masks, foreground, window, features = reference
    valid, instances, labels = ours.window_targets(batch)
    target = (instances[:, :, None] == instances[:, None]) & (instances >= 0)[:, :, None]
    target, inside = target.to(x), (instances >= 0).to(x)
    present = nn.functional.one_hot(labels, CLASSES + 1).amax(1)[:, :-1]
    total, *_ = losses.stale_loss(
        labels, scores, target, masks, inside, foreground, inside, window, present, features, "train"
    )
    published = {
        "step": losses.top_ce_loss(labels, scores),
        "recording": losses.top_ce_loss(present.argmax(1), window),
        "mask": losses.bottom_branch_loss(target, masks),
        "foreground": nn.functional.binary_cross_entropy(foreground, inside),
        "consistency": losses.redundancy_loss(target, masks, labels, scores, features),
        "total": total,
    }
    return outputs, reference, ours.loss(outputs, batch), published


def gradient_rows(theirs, ours, our_total, total, model: str, case="", limit=None) -> Iterator[Row]:
    """Of three layers. In float32 a value at the kink of a ReLU may pass it on one side alone: no limit."""
    for name, our_weight, weight in (
        ("mask_conv.weight", ours.mask_conv.weight, theirs.localizer_mask[0].weight),
        ("snippet.query", ours.snippet.query.weight, theirs.embedding.w_qs.weight),
        ("adapter.out", ours.adapter.out.weight, theirs.cross_att.fc.weight),
    ):
        gradient = torch.autograd.grad(our_total, our_weight, retain_graph=True)[0]
        their_gradient = torch.autograd.grad(total, weight, retain_graph=True)[0]
        if gradient.ndim == 3:
            gradient = gradient.permute(2, 1, 0)
        difference = largest_difference(gradient, their_gradient) / float(their_gradient.abs().max())
        how = f"{HOW}; relative to the largest"
        yield Row(model, "gradient", f"{name}{case}", "", "", difference, limit, how)


def macs_row(theirs, ours, model: str) -> Row:
    """MACs of one window, without the encoder of the texts in both."""
    example = torch.randn(1, WIDTH, STEPS, generator=torch.Generator().manual_seed(3))
    counts = count_call(ours, ours, example), count_call(theirs, lambda x: theirs(x, "train"), example)
    unknown = ", ".join(sorted({*counts[0][1], *counts[1][1]}))
    how = "tal_lib.cost.macs on both, without CLIP; the difference is relative"
    macs = counts[0][0], counts[1][0]
    how += f"; not counted: {unknown}" if unknown else ""
    return Row(model, "MACs", f"T = {STEPS}, K = {CLASSES}", *macs, abs(macs[0] / macs[1] - 1), 1e-9, how)


@torch.no_grad()
def suppression_rows(post: ModuleType, ours, model: str) -> Iterator[Row]:
    """Soft-NMS of drawn segments: with the tIoU and without their division of the decay, and as it is.

    Their function of the overlap counts from the smaller of two starts where the tIoU counts from the larger.
    """
    generator = torch.Generator().manual_seed(4)
    start = 1000 * torch.rand(DRAWN, generator=generator)
    segments = torch.stack([start, start + 2 + 40 * torch.rand(DRAWN, generator=generator)], 1)
    scores = 0.1 + 0.8 * torch.rand(DRAWN, generator=generator)
    number = torch.arange(DRAWN)  # in place of a class, which neither asks for
    ours_kept = suppress(Candidates(segments, scores, number), ours.config.post)
    table = np.concatenate([ours_kept[0], ours_kept[1][:, None], ours_kept[2][:, None]], 1)
    columns = ["xmin", "xmax", "score", "label"]
    given = torch.cat([segments, scores[:, None], number[:, None]], 1).double().numpy()
    given = pd.DataFrame(given, columns=columns)
    with mock.patch.object(post, "IOU", tiou):
        kept = post.Soft_NMS(given, 1.0)[columns].to_numpy()
    published = post.Soft_NMS(given, post.nms_thresh)[columns].to_numpy()
    how = f"their Soft_NMS of {DRAWN} drawn segments"
    difference = float(np.abs(table - kept).max()) if len(table) == len(kept) else float("inf")
    case, rule = "soft-NMS with the tIoU", "; decay not divided by 0.6; segments (steps), scores in order"
    yield Row(model, "decoding", case, len(table), len(kept), difference, 1e-3, how + rule)
    other = len(set(published[:, 3]) - set(table[:, 3]))
    case, rule = "soft-NMS as published", "; how many of theirs ours does not keep"
    yield Row(model, "decoding", case, len(table), len(published), other, None, how + rule)


def tiou(start: float, end: float, other_start: float, other_end: float) -> float:
    """The tIoU of two segments."""
    shared = max(0.0, min(end, other_end) - max(start, other_start))
    return shared / (end - start + other_end - other_start - shared)


def item(features: Tensor, index: int) -> Item:
    """A recording of one window with three instances of two classes."""
    return Item(
        recording=str(index),
        features=features,
        duration=float(STEPS),
        stride_s=1.0,
        window_s=1.0,
        classes=tuple(f"class {k}" for k in range(CLASSES)),
        segments=torch.tensor([[9.5, 29.5], [39.5, 44.5], [59.5, 89.5]]),
        labels=torch.tensor([3 + index, 10, 3 + index]),
    )
