"""Released checkpoints: the authors' files give the outputs of a channels-first reimplementation."""

import pytest
import torch
import torch.nn.functional as F

from tal_lib import TalError, models
from tal_lib.files import data_root

C, H, K, D, HIDDEN = 32, 32, 3, 6, {"actionformer": 128, "tridet": 24}
OPTIONS = {
    "actionformer": {"width": C, "head_width": H, "window": 5},
    "tridet": {"width": C, "head_width": H, "mlp_width": 24, "bins": 4},
    "temporalmaxer": {"width": C, "head_width": H},
}


def released(name):
    """Random weights under the authors' names."""
    torch.manual_seed(0)
    shapes = {}
    norm = lambda key: shapes.update({f"{key}.weight": (1, C, 1), f"{key}.bias": (1, C, 1)})
    for i, width in enumerate((D, C)):
        shapes[f"backbone.embd.{i}.conv.weight"] = (C, width, 3)
        norm(f"backbone.embd_norm.{i}")
    for part, count in (("stem", 2), ("branch", 5)) if name != "temporalmaxer" else ():
        for i in range(count):
            at = f"backbone.{part}.{i}"
            if name == "actionformer":
                norm(f"{at}.ln1"), norm(f"{at}.ln2")
                for which in ("query", "key", "value"):
                    shapes[f"{at}.attn.{which}_conv.conv.weight"] = (C, 1, 3)
                    norm(f"{at}.attn.{which}_norm")
                    shapes |= {f"{at}.attn.{which}.weight": (C, C, 1), f"{at}.attn.{which}.bias": (C,)}
                shapes |= {f"{at}.attn.proj.weight": (C, C, 1), f"{at}.attn.proj.bias": (C,)}
                drops = ("attn", "mlp")
            else:
                norm(f"{at}.ln")
                shapes |= {f"{at}.gn.weight": (C,), f"{at}.gn.bias": (C,)}
                for which, kernel in (("psi", 1), ("fc", 1), ("convw", 1), ("convkw", 11), ("global_fc", 1)):
                    shapes |= {f"{at}.{which}.weight": (C, 1, kernel), f"{at}.{which}.bias": (C,)}
                drops = ("out", "mlp") if part == "branch" else ()
            last = 3 if name == "actionformer" else 2
            hidden = HIDDEN[name]
            shapes |= {
                f"{at}.mlp.0.weight": (hidden, C, 1),
                f"{at}.mlp.0.bias": (hidden,),
                f"{at}.mlp.{last}.weight": (C, hidden, 1),
                f"{at}.mlp.{last}.bias": (C,),
            }
            shapes |= {f"{at}.drop_path_{drop}.scale": (1, C, 1) for drop in drops}
    if name != "temporalmaxer":
        for i in range(6):
            norm(f"neck.fpn_norms.{i}")
    for head in ("cls", "reg", *(("start", "end") if name == "tridet" else ())):
        for i in range(2):
            shapes[f"{head}_head.head.{i}.conv.weight"] = (H, C, 3)
            norm(f"{head}_head.norm.{i}")
        if head != "reg":
            shapes |= {
                f"{head}_head.cls_head.conv.weight": (K, H, 3),
                f"{head}_head.cls_head.conv.bias": (K,),
            }
    shapes |= {f"reg_head.scale.{i}.scale": () for i in range(6)}
    outs = 10 if name == "tridet" else 2
    shapes |= {"reg_head.offset_head.conv.weight": (outs, H, 3), "reg_head.offset_head.conv.bias": (outs,)}
    return {key: 0.3 * torch.randn(shape) for key, shape in shapes.items()}


class Twin:
    """The published forward pass on channels-first tensors (1, C, T), with dense attention."""

    def __init__(self, name, weights):
        self.name, self.w = name, weights

    def conv(self, key, x, **options):
        weight = self.w[f"{key}.weight"]
        return F.conv1d(x, weight, self.w.get(f"{key}.bias"), padding=weight.shape[-1] // 2, **options)

    def norm(self, key, x):
        return (
            F.layer_norm(x.transpose(1, 2), (x.shape[1],)).transpose(1, 2) * self.w[f"{key}.weight"]
            + self.w[f"{key}.bias"]
        )

    def attention(self, at, x, stride):
        q, k, v = (
            self.conv(
                f"{at}.{which}",
                self.norm(
                    f"{at}.{which}_norm", self.conv(f"{at}.{which}_conv.conv", x, stride=stride, groups=C)
                ),
            )
            for which in ("query", "key", "value")
        )
        split = lambda t: t.reshape(1, 4, C // 4, -1).transpose(2, 3)
        scores = split(q) @ split(k).transpose(-1, -2) / (C // 4) ** 0.5
        steps = torch.arange(scores.shape[-1])
        scores = scores.masked_fill((steps[:, None] - steps).abs() > 2, float("-inf"))
        return self.conv(f"{at}.proj", (scores.softmax(-1) @ split(v)).transpose(2, 3).reshape(1, C, -1))

    def block(self, at, x, stride):
        w = self.w
        if self.name == "actionformer":
            skip = F.max_pool1d(x, 3, 2, 1) if stride == 2 else x
            x = skip + w[f"{at}.drop_path_attn.scale"] * self.attention(
                f"{at}.attn", self.norm(f"{at}.ln1", x), stride
            )
            inner = F.gelu(self.conv(f"{at}.mlp.0", self.norm(f"{at}.ln2", x)))
            return x + w[f"{at}.drop_path_mlp.scale"] * self.conv(f"{at}.mlp.3", inner)
        x = F.max_pool1d(x, 3, 2, 1) if stride == 2 else x
        u = self.norm(f"{at}.ln", x)
        depth = lambda which, v: self.conv(f"{at}.{which}", v, groups=C)
        gate = F.relu(depth("global_fc", u.mean(-1, keepdim=True)))
        out = depth("fc", u) * gate + (depth("convw", u) + depth("convkw", u)) * depth("psi", u) + u
        x = x + w.get(f"{at}.drop_path_out.scale", 1) * out
        inner = self.conv(
            f"{at}.mlp.2",
            F.gelu(self.conv(f"{at}.mlp.0", F.group_norm(x, 16, w[f"{at}.gn.weight"], w[f"{at}.gn.bias"]))),
        )
        return x + w.get(f"{at}.drop_path_mlp.scale", 1) * inner

    def head(self, head, out, x):
        for i in range(2):
            x = F.relu(self.norm(f"{head}.norm.{i}", self.conv(f"{head}.head.{i}.conv", x)))
        return self.conv(f"{head}.{out}.conv", x).transpose(1, 2)

    def __call__(self, x):
        for i in range(2):
            x = F.relu(self.norm(f"backbone.embd_norm.{i}", self.conv(f"backbone.embd.{i}.conv", x)))
        if self.name == "temporalmaxer":
            levels = [x]
            for _ in range(5):
                levels.append(F.max_pool1d(levels[-1], 3, 2, 1))
        else:
            for i in range(2):
                x = self.block(f"backbone.stem.{i}", x, 1)
            levels = [x]
            for i in range(5):
                levels.append(self.block(f"backbone.branch.{i}", levels[-1], 2))
            levels = [self.norm(f"neck.fpn_norms.{i}", level) for i, level in enumerate(levels)]
        outputs = [
            torch.cat([self.head("cls_head", "cls_head", level) for level in levels], 1),
            torch.cat(
                [
                    F.relu(self.w[f"reg_head.scale.{i}.scale"] * self.head("reg_head", "offset_head", level))
                    for i, level in enumerate(levels)
                ],
                1,
            ),
        ]
        if self.name == "tridet":
            outputs[1] = outputs[1].unflatten(-1, (2, -1))
            outputs += [
                torch.cat([self.head(f"{side}_head", "cls_head", level) for level in levels], 1)
                for side in ("start", "end")
            ]
        return outputs


@pytest.mark.parametrize("name", ["actionformer", "tridet", "temporalmaxer"])
@pytest.mark.parametrize("key", ["state_dict_ema", "state_dict"])
def test_released_weights_give_the_published_outputs(tmp_path, name, key):
    weights = released(name)
    other = {f"module.{one}": torch.zeros_like(value) for one, value in weights.items()}
    content = {"epoch": 34, key: {f"module.{one}": value for one, value in weights.items()}}
    torch.save(content | ({"state_dict": other} if key == "state_dict_ema" else {}), tmp_path / "m.pth.tar")
    model = models.load_checkpoint(name, tmp_path / "m.pth.tar", **OPTIONS[name])
    x = torch.randn(1, D, 75)
    with torch.no_grad():
        for mine, want in zip(model(x), Twin(name, weights)(x), strict=True):
            torch.testing.assert_close(mine, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["actionformer", "tridet", "temporalmaxer"])
def test_every_released_tensor_has_its_place(tmp_path, name, real_data):
    names = data_root().parent / "facts" / "checkpoints" / f"{name}.thumos14.txt"
    if not names.exists():
        pytest.skip("the list of released tensors is not at hand")
    pairs = (line.split(" ", 1) for line in names.read_text().splitlines() if line.strip())
    shapes = {
        key: [int(size) for size in shape.strip("() \n").split(",") if size.strip()] for key, shape in pairs
    }
    torch.save(
        {"state_dict_ema": {f"module.{key}": torch.zeros(shape) for key, shape in shapes.items()}},
        tmp_path / "m.pt",
    )
    model = models.load_checkpoint(name, tmp_path / "m.pt")
    assert (model.input_dim, model.num_classes) == (2048, 20)
    own = sum(p.numel() for p in model.parameters())
    assert own == sum(torch.Size(shape).numel() for shape in shapes.values())


def test_what_does_not_fit_is_named(tmp_path):
    weights = released("temporalmaxer")
    path = tmp_path / "m.pt"

    def load(changed, **options):
        torch.save({"state_dict": changed}, path)
        return models.load_checkpoint("temporalmaxer", path, **(OPTIONS["temporalmaxer"] | options))

    load(weights)
    without = {key: value for key, value in weights.items() if key != "cls_head.norm.1.bias"}
    with pytest.raises(TalError, match="m.pt.*missing class_tower.layers.1.norm.bias"):
        load(without)
    with pytest.raises(TalError, match="extra surprise"):
        load(weights | {"surprise": torch.zeros(2)})
    with pytest.raises(TalError, match=r"boundary_out.bias of shape \(3,\), expected \(2,\)"):
        load(weights | {"reg_head.offset_head.conv.bias": torch.zeros(3)})
    with pytest.raises(TalError, match="does not fit"):
        load(weights, width=64)
    with pytest.raises(TalError, match="not a released checkpoint"):
        load({"something": torch.zeros(1)})
    with pytest.raises(TalError, match="no released checkpoints"):
        models.load_checkpoint("bilstm", path)
