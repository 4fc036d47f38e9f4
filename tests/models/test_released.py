"""Released checkpoints: the authors' files give the outputs of a channels-first reimplementation."""

import pytest
import torch
import torch.nn.functional as F

from tal_lib import TalError, models
from tal_lib.files import data_root

C, H, K, D, HIDDEN = 32, 32, 3, 6, {"actionformer": 128, "tridet": 24}
# options of our models for these widths
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
    """The published forward pass on channels-first tensors (1, C, T), with dense attention.

    padded: the recording is padded with zeros to this many steps. The convolutions of embedding, attention
    and heads set their outputs to zero there; everything else sees what is there.
    """

    def __init__(self, name, weights, padded=None):
        self.name, self.w, self.padded = name, weights, padded

    def pad(self, x):
        self.steps = x.shape[-1]
        x = F.pad(x, (0, (self.padded or self.steps) - self.steps))
        strides = {-(-x.shape[-1] // 2**level): 2**level for level in range(6)}
        assert len(strides) == 6  # a length tells the level
        self.valid = {size: (torch.arange(size) * stride < self.steps) for size, stride in strides.items()}
        return x

    def masked(self, x):
        return x * self.valid[x.shape[-1]]

    def cut(self, levels):
        """Outputs (1, T, ·) of the levels at the points of the recording, end to end."""
        return torch.cat([x[:, : -(-self.steps // 2**level)] for level, x in enumerate(levels)], 1)

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
                    f"{at}.{which}_norm",
                    self.masked(self.conv(f"{at}.{which}_conv.conv", x, stride=stride, groups=C)),
                ),
            )
            for which in ("query", "key", "value")
        )
        split = lambda t: t.reshape(1, 4, C // 4, -1).transpose(2, 3)
        scores = split(q) @ split(k).transpose(-1, -2) / (C // 4) ** 0.5
        steps = torch.arange(scores.shape[-1])
        scores = scores.masked_fill((steps[:, None] - steps).abs() > 2, float("-inf"))
        scores = scores.masked_fill(~self.valid[scores.shape[-1]], -1e4)
        return self.masked(
            self.conv(f"{at}.proj", (scores.softmax(-1) @ split(v)).transpose(2, 3).reshape(1, C, -1))
        )

    def block(self, at, x, stride):
        w = self.w
        if self.name == "actionformer":
            skip = F.max_pool1d(x, 3, 2, 1) if stride == 2 else x
            x = self.masked(skip) + w[f"{at}.drop_path_attn.scale"] * self.attention(
                f"{at}.attn", self.norm(f"{at}.ln1", x), stride
            )
            inner = F.gelu(self.conv(f"{at}.mlp.0", self.norm(f"{at}.ln2", x)))
            return x + w[f"{at}.drop_path_mlp.scale"] * self.masked(self.conv(f"{at}.mlp.3", inner))
        x = F.max_pool1d(x, 3, 2, 1) if stride == 2 else x
        u = self.norm(f"{at}.ln", x)
        depth = lambda which, v: self.conv(f"{at}.{which}", v, groups=C)
        gate = F.relu(depth("global_fc", u.mean(-1, keepdim=True)))
        out = depth("fc", u) * gate + (depth("convw", u) + depth("convkw", u)) * depth("psi", u) + u
        x = self.masked(x) + w.get(f"{at}.drop_path_out.scale", 1) * out
        inner = self.conv(
            f"{at}.mlp.2",
            F.gelu(self.conv(f"{at}.mlp.0", F.group_norm(x, 16, w[f"{at}.gn.weight"], w[f"{at}.gn.bias"]))),
        )
        return x + w.get(f"{at}.drop_path_mlp.scale", 1) * inner

    def head(self, head, out, x):
        for i in range(2):
            x = F.relu(self.norm(f"{head}.norm.{i}", self.masked(self.conv(f"{head}.head.{i}.conv", x))))
        return self.masked(self.conv(f"{head}.{out}.conv", x)).transpose(1, 2)

    def __call__(self, x):
        x = self.pad(x)
        for i in range(2):
            x = F.relu(
                self.norm(f"backbone.embd_norm.{i}", self.masked(self.conv(f"backbone.embd.{i}.conv", x)))
            )
        if self.name == "temporalmaxer":
            levels = [x]
            for _ in range(5):
                levels.append(self.masked(F.max_pool1d(levels[-1], 3, 2, 1)))
            levels = [F.group_norm(level, 4) for level in levels]
        else:
            for i in range(2):
                x = self.block(f"backbone.stem.{i}", x, 1)
            levels = [x]
            for i in range(5):
                levels.append(self.block(f"backbone.branch.{i}", levels[-1], 2))
            levels = [self.norm(f"neck.fpn_norms.{i}", level) for i, level in enumerate(levels)]
        outputs = [
            self.cut([self.head("cls_head", "cls_head", level) for level in levels]),
            self.cut(
                [
                    F.relu(self.w[f"reg_head.scale.{i}.scale"] * self.head("reg_head", "offset_head", level))
                    for i, level in enumerate(levels)
                ]
            ),
        ]
        if self.name == "tridet":
            outputs[1] = outputs[1].unflatten(-1, (2, -1))
            outputs += [
                self.cut([self.head(f"{side}_head", "cls_head", level) for level in levels])
                for side in ("start", "end")
            ]
        return outputs


@pytest.mark.parametrize("name", ["actionformer", "tridet", "temporalmaxer"])
@pytest.mark.parametrize("key", ["state_dict_ema", "state_dict"])
def test_released_weights_give_the_published_outputs(tmp_path, name, key):
    weights = released(name)
    other = {f"module.{tensor_name}": torch.zeros_like(value) for tensor_name, value in weights.items()}
    content = {"epoch": 34, key: {f"module.{tensor_name}": value for tensor_name, value in weights.items()}}
    torch.save(content | ({"state_dict": other} if key == "state_dict_ema" else {}), tmp_path / "m.pth.tar")
    model = models.load_checkpoint(name, tmp_path / "m.pth.tar", padding="none", **OPTIONS[name])
    x = torch.randn(1, D, 75)
    with torch.no_grad():
        same(model(x), Twin(name, weights)(x))


def test_says_which_padding_it_chose_unless_it_was_asked_for(tmp_path, capsys):
    torch.save({"state_dict": released("tridet")}, tmp_path / "epoch_039.pth.tar")
    models.load_checkpoint("tridet", tmp_path / "epoch_039.pth.tar", **OPTIONS["tridet"])
    assert 'epoch_039.pth.tar: padding="authors"' in capsys.readouterr().err
    models.load_checkpoint("tridet", tmp_path / "epoch_039.pth.tar", padding="none", **OPTIONS["tridet"])
    assert not capsys.readouterr().err


def same(ours, theirs):
    for output, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(output, want, rtol=1e-4, atol=1e-4)


def padded_model(tmp_path, name, **options):
    """Our model with released weights and their padding to 160 steps, and the weights."""
    weights = released(name)
    torch.save({"state_dict": weights}, tmp_path / "m.pt")
    return models.load_checkpoint(
        name, tmp_path / "m.pt", padded_steps=160, **OPTIONS[name] | options
    ), weights


# lengths below, at and above the least one; above it to a multiple of the coarsest stride
LENGTHS = {75: 160, 160: 160, 161: 192}


@pytest.mark.parametrize("name", ["actionformer", "tridet", "temporalmaxer"])
@pytest.mark.parametrize("steps", LENGTHS)
def test_padding_has_the_influence_that_it_has_in_their_code(tmp_path, name, steps):
    model, weights = padded_model(tmp_path, name)
    padded = LENGTHS[steps] if name != "actionformer" or steps <= 160 else 256  # of 32 × 2 × (5 // 2)
    x = torch.randn(1, D, steps)
    with torch.no_grad():
        ours = model(x)
        same(ours, Twin(name, weights, padded)(x))
        without = Twin(name, weights)(x)
    if steps < 160:  # the padding matters: a model that ignored it would not pass
        assert max(float((a - b).abs().max()) for a, b in zip(ours, without)) > 0.01


@pytest.mark.parametrize(
    ("name", "options", "lengths"),
    [  # read off their models: max_seq_len, and the next multiple of their max_div_factor
        ("actionformer", {"window": 19}, {1: 2304, 2304: 2304, 2305: 2880, 5000: 5184}),
        ("tridet", {}, {1: 2304, 2304: 2304, 2305: 2336, 5000: 5024}),
        ("temporalmaxer", {}, {1: 2304, 2304: 2304, 2305: 2336, 5000: 5024}),
        ("tridet", {"window": 15, "padded_steps": 768}, {700: 768, 769: 960}),
        ("actionformer", {"window": 7, "padded_steps": 192}, {100: 192, 193: 384}),
    ],
)
def test_recordings_are_padded_to_their_lengths(name, options, lengths):
    model = models.build(name, input_dim=D, num_classes=K, **{"width": 32, "head_width": 32} | options)
    assert {steps: model.padded_length(steps) for steps in lengths} == lengths


@pytest.mark.parametrize("name", ["actionformer", "tridet", "temporalmaxer"])
def test_padding_as_theirs_does_not_depend_on_the_batch(tmp_path, name):
    """Each recording is padded by its length: recordings of 300, 75 and 170 steps in one batch."""
    model, _ = padded_model(tmp_path, name)
    lengths = [300, 75, 170]
    batch, mask = torch.randn(3, D, 300), torch.arange(300) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        batched = model(batch, mask)
        valid = model.level_mask(mask)
        for row, steps in enumerate(lengths):
            alone = model(batch[row : row + 1, :, :steps])
            same([output[row][valid[row]] for output in batched], [output[0] for output in alone])


def test_a_loaded_model_says_its_padding(tmp_path):
    model, _ = padded_model(tmp_path, "tridet")
    assert model.config.padding == model.spec["overrides"]["padding"] == "authors"
    assert "padding='none'" in model.not_exportable
    free, _ = padded_model(tmp_path, "tridet", padding="none")
    assert free.config.padding == "none" and not free.not_exportable


@pytest.mark.parametrize("steps", [75, 300])
def test_gradients_flow_through_their_padding(tmp_path, steps):
    model, _ = padded_model(tmp_path, "tridet")
    x = torch.randn(1, D, steps, requires_grad=True)
    sum(output.sum() for output in model(x)).backward()
    assert x.grad.isfinite().all() and x.grad.abs().max() > 0


def test_the_norm_before_the_heads_is_read_from_the_file(tmp_path):
    """A layer norm is one module that the file lists once per level; a group norm has no parameters."""
    weights = released("temporalmaxer")
    scale, shift = 1 + torch.rand(1, C, 1), torch.randn(1, C, 1)
    norms = {f"neck.fpn_norms.{i}.weight": scale for i in range(6)} | {
        f"neck.fpn_norms.{i}.bias": shift for i in range(6)
    }
    torch.save({"state_dict": weights | norms}, tmp_path / "layer.pt")
    torch.save({"state_dict": weights}, tmp_path / "group.pt")
    layer, group = (
        models.load_checkpoint("temporalmaxer", tmp_path / f"{kind}.pt", **OPTIONS["temporalmaxer"])
        for kind in ("layer", "group")
    )
    assert (layer.config.neck_norm, group.config.neck_norm) == ("layer", "group")
    count = lambda model: sum(weight.numel() for weight in model.parameters())
    assert count(layer) - count(group) == 2 * C  # not six times
    x = torch.randn(1, 70, C)
    levels, _ = layer.pyramid(x, None)
    want = F.layer_norm(x, (C,), scale.flatten(), shift.flatten())
    torch.testing.assert_close(levels[0], want, rtol=1e-5, atol=1e-5)
    levels, _ = group.pyramid(x, None)
    for level in range(6):
        torch.testing.assert_close(
            levels[level].transpose(1, 2), F.group_norm(x.transpose(1, 2), 4), rtol=1e-5, atol=1e-5
        )
        x = F.max_pool1d(x.transpose(1, 2), 3, 2, 1).transpose(1, 2)


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
    count = sum(p.numel() for p in model.parameters())
    assert count == sum(torch.Size(shape).numel() for shape in shapes.values())


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
    with pytest.raises(TalError, match=r"scale.0.scale of shape \(3,\), expected one number"):
        load(weights | {"reg_head.scale.0.scale": torch.zeros(3)})
    for other in ({"something": torch.zeros(1)}, {1: torch.zeros(1)}):
        with pytest.raises(TalError, match="not a released checkpoint"):
            load(other)
    sparse = {key: value.to_sparse() if value.ndim == 3 else value for key, value in weights.items()}
    assert all(map(torch.equal, load(sparse).parameters(), load(weights).parameters()))
    with pytest.raises(TalError, match="no released checkpoint of .* can be loaded"):
        models.load_checkpoint("bilstm", path)
