"""Load the released checkpoints of ActionFormer, TriDet and TemporalMaxer.

Tensor names are those of the authors' repositories (happyharrycn/actionformer_release, dingfengshi/TriDet,
TuanTNG/TemporalMaxer). Their code pads recordings, and the padding has an influence on the outputs; a loaded
model does the same (`padding="authors"`, see parts/published.py).
"""

import re
import sys
from pathlib import Path

import torch
from torch import Tensor

from tal_lib.errors import TalError
from tal_lib.models.parts.checkpoint_file import read_checkpoint
from tal_lib.models.parts.detector import Detector
from tal_lib.models.parts.registry import build

RELEASED = ("actionformer", "tridet", "temporalmaxer")

# released name -> ours; the first that matches
_NAMES = [
    (re.compile(pattern), name)
    for pattern, name in (
        (r"backbone\.embd\.(\d+)\.conv\.", r"embedding.\1.conv."),
        (r"backbone\.embd_norm\.(\d+)\.", r"embedding.\1.norm."),
        (r"backbone\.(stem|branch)\.(\d+)\.", r"\1.\2."),
        (r"neck\.fpn_norms\.(\d+)\.", r"neck.\1."),
        (r"cls_head\.cls_head\.conv\.", "class_out."),
        (r"(start|end)_head\.cls_head\.conv\.", r"\1_out."),
        (r"cls_head\.head\.(\d+)\.conv\.", r"class_tower.layers.\1.conv."),
        (r"cls_head\.norm\.(\d+)\.", r"class_tower.layers.\1.norm."),
        (r"(start|end)_head\.head\.(\d+)\.conv\.", r"\1_tower.layers.\2.conv."),
        (r"(start|end)_head\.norm\.(\d+)\.", r"\1_tower.layers.\2.norm."),
        (r"reg_head\.head\.(\d+)\.conv\.", r"boundary_tower.layers.\1.conv."),
        (r"reg_head\.norm\.(\d+)\.", r"boundary_tower.layers.\1.norm."),
        (r"reg_head\.offset_head\.conv\.", "boundary_out."),
    )
]
# inside a block of the pyramid
_BLOCK = [
    (re.compile(rf"\.{pattern}\."), f".{name}.")
    for pattern, name in (
        (r"attn\.query_conv\.conv", "convs.0"),
        (r"attn\.key_conv\.conv", "convs.1"),
        (r"attn\.value_conv\.conv", "convs.2"),
        (r"attn\.query_norm", "norms.0"),
        (r"attn\.key_norm", "norms.1"),
        (r"attn\.value_norm", "norms.2"),
        (r"attn\.query", "projections.0"),
        (r"attn\.key", "projections.1"),
        (r"attn\.value", "projections.2"),
        (r"attn\.proj", "out"),
        (r"ln1", "norm1"),
        (r"ln2", "norm2"),
        (r"ln", "norm"),
        (r"gn", "group_norm"),
        (r"mlp\.0", "mlp_in"),
        (r"mlp\.[23]", "mlp_out"),
        (r"drop_path_(?:attn|out)", "drop1"),
        (r"drop_path_mlp", "drop2"),
    )
]


def load_checkpoint(name: str, path: str | Path, preset: str = "paper", **overrides) -> Detector:
    """A model with the weights of its authors' released file; the averaged ones (`state_dict_ema`) if it has
    them.

    Its option `padding` is `authors`, so that it gives the outputs of their code, and one line on stderr says
    so. `padding="none"` frees it from the influence of their padding; its outputs then differ from the
    published ones. Nothing is printed if you give `padding`.

    Args:
        name: actionformer, tridet or temporalmaxer.
        preset, overrides: must be those of the file. Feature width, number of classes and TemporalMaxer's
            norm before the heads are read from it.

    Raises:
        TalError: another model, an unreadable file, or tensors that are missing, extra or of another shape;
            all are named.
    """
    if name not in RELEASED:
        raise TalError(
            f"no released checkpoint of {name!r} can be loaded", remedy=f"Choose from {', '.join(RELEASED)}."
        )
    released = _released_tensors(path)
    try:
        input_dim, num_classes = (
            released["backbone.embd.0.conv.weight"].shape[1],
            released["cls_head.cls_head.conv.weight"].shape[0],
        )
    except (KeyError, IndexError):
        raise TalError(
            f"not a released checkpoint of {name}: no {'backbone.embd.0.conv.weight'!r}",
            where=path,
            remedy="Models trained here are read by tal_lib.training.load_model.",
        ) from None
    asked, overrides = "padding" in overrides, {"padding": "authors"} | overrides
    if name == "temporalmaxer" and "neck.fpn_norms.0.weight" in released:
        overrides = {"neck_norm": "layer"} | overrides
    model = build(name, input_dim=input_dim, num_classes=num_classes, preset=preset, **overrides)
    target = {key: value for key, value in model.state_dict().items() if key != "positives"}  # a statistic
    tensors, problems = _translated(released, target)
    if problems:
        raise TalError(
            f"does not fit {name} ({preset}): {'; '.join(problems[:6])}"
            + (f"; and {len(problems) - 6} more" if len(problems) > 6 else ""),
            where=path,
            remedy="Name the preset and options with which it was trained.",
        )
    model.load_state_dict(tensors, strict=False)
    if not asked:
        print(
            f'{Path(path).name}: padding="authors", as in the published code; '
            'padding="none" gives other outputs',
            file=sys.stderr,
        )
    return model.eval()


def _released_tensors(path):
    """Tensors of a released file by the authors' names; the averaged ones if it has them."""
    content = read_checkpoint(path)
    content = next(
        (content[key] for key in ("state_dict_ema", "state_dict") if isinstance(content.get(key), dict)),
        content,
    )
    return {
        str(key).removeprefix("module."): value.to_dense() if value.is_sparse else value
        for key, value in content.items()
        if isinstance(value, Tensor)
    }


def _translated(released, target):
    """Released tensors by our names and in our layout, and what does not fit `target`, a line each."""
    scales = sorted(
        (key for key in released if re.fullmatch(r"reg_head\.scale\.\d+\.scale", key)),
        key=lambda key: int(key.split(".")[2]),
    )
    tensors, problems = {}, []
    if scales and all(released[key].numel() == 1 for key in scales):
        tensors["scales.values"] = torch.stack([released[key].reshape(()) for key in scales])
    for key, value in released.items():
        if key in scales:
            if value.numel() != 1:
                problems.append(f"{key} of shape {tuple(value.shape)}, expected one number")
            continue
        ours = _our_name(key)
        if ours not in target:
            problems.append(f"extra {key}")
        else:
            tensors[ours] = _our_layout(value, target[ours])
    problems += [f"missing {key}" for key in target if key not in tensors]
    problems += [
        f"{key} of shape {tuple(value.shape)}, expected {tuple(target[key].shape)}"
        for key, value in tensors.items()
        if key in target and value.shape != target[key].shape
    ]
    return tensors, problems


def _our_name(key):
    for pattern, name in _NAMES:
        key, changed = pattern.subn(name, key, count=1)
        if changed:
            break
    if key.startswith(("stem.", "branch.")):
        for pattern, name in _BLOCK:
            key, changed = pattern.subn(name, key, count=1)
            if changed:
                break
    return key


def _our_layout(value, target):
    """Channels-first tensors (C', C, k), (C, 1, k), (1, C, 1) → steps-first ones."""
    if value.ndim == 3 and target.ndim == 3:
        return value.permute(2, 1, 0).contiguous()  # a convolution
    if value.ndim == 3 and target.ndim == 2:
        wide = value.shape[1] == 1 and value.shape[2] == target.shape[0] and value.shape[0] == target.shape[1]
        return value[:, 0].T.contiguous() if wide else value.squeeze(-1)  # depthwise, or a 1×1 convolution
    return value.flatten() if value.ndim == 3 and target.ndim == 1 else value
