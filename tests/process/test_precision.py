"""The precision `auto` follows the processor; bfloat16 on a processor without it is warned of, once."""

import sys

import pytest
import torch

from tal_lib import TalError, models
from tal_lib.cost import profile
from tal_lib.process.precision import (
    PRECISIONS,
    chosen_precision,
    multiplies_bfloat16,
    warn_of_bfloat16,
)
from tal_lib.training import loop as training
from tal_lib.training import recipe_for

cost_precisions = sys.modules[profile.__module__].PRECISIONS
PROCESSORS = {
    "Xeon with AMX alone": ({"avx512_f": True, "amx_bf16": True, "avx512_bf16": False}, True),
    "EPYC Zen 4": ({"avx512_f": True, "amx_bf16": False, "avx512_bf16": True}, True),
    "EPYC Zen 3": ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
    "Skylake": ({"avx512_f": True, "avx512_bf16": False}, False),
    "Graviton 3": ({"neon": True, "bf16": True, "sve_bf16": True}, True),
    "Graviton 2": ({"neon": True, "bf16": False}, False),
    "unknown": ({}, False),
}


@pytest.fixture(params=PROCESSORS)
def processor(request, monkeypatch):
    """Whether the pretended processor multiplies bfloat16."""
    capabilities, fast = PROCESSORS[request.param]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    warn_of_bfloat16.cache_clear()
    return fast


def test_auto_follows_the_processor(processor, capsys):
    assert multiplies_bfloat16() == processor
    assert chosen_precision("auto") == ("bfloat16" if processor else "float32")
    assert chosen_precision("float32") == "float32"
    assert capsys.readouterr().err == ""


def test_bfloat16_is_computed_as_asked_with_one_warning_where_it_is_slow(processor, capsys):
    assert [chosen_precision("bfloat16") for _ in range(3)] == ["bfloat16"] * 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (not processor)
    assert all("1.4 to 3.6 times the time of float32" in line and "auto" in line for line in lines)


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_from_ampere_on(capability, fast, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert chosen_precision("auto", "cuda:1") == ("bfloat16" if fast else "float32")


def test_training_resolves_auto(processor, small, monkeypatch):
    """Every step of `fit` has the precision of the processor."""
    steps = []

    def stop(state, benchmark, items, augment, recipe, device):
        steps.append(recipe.precision)
        return {"total": 0.0}

    monkeypatch.setattr(training, "_train_epoch", stop)
    recipe = recipe_for("bilstm", precision="auto", epochs=1, min_steps=1, ema=0.0)
    model = models.build("bilstm", input_dim=small.feature_spec.dim, num_classes=len(small.classes))
    training.fit(model, small, small.recordings("train")[:1], recipe, 0, device="cpu")
    assert steps == ["bfloat16" if processor else "float32"]


def test_cost_resolves_auto_and_warns_once(processor, monkeypatch, capsys):
    seen = []

    def measured(function, what, threads, **given):
        seen.append(given["precision"])
        raise TalError("stop")

    monkeypatch.setattr(sys.modules[profile.__module__], "isolated", measured)
    for asked in ("auto", "bfloat16", "bfloat16", "compiled"):
        with pytest.raises(TalError, match="stop"):
            profile("bilstm", 16, 9, precision=asked)
    assert seen == ["bfloat16" if processor else "float32", "bfloat16", "bfloat16", "compiled"]
    assert capsys.readouterr().err.count("bfloat16: this processor") == (not processor)


def test_another_word_is_refused():
    with pytest.raises(TalError, match="auto"):
        chosen_precision("float8")
    with pytest.raises(TalError, match="precision"):
        recipe_for("bilstm", precision="float8")


@pytest.mark.parametrize(("asked", "known"), [("float16", PRECISIONS), ("tf32", cost_precisions)])
def test_what_only_a_gpu_computes_is_refused_on_a_cpu(asked, known):
    with pytest.raises(
        TalError, match=f"{asked} needs a CUDA GPU, and the device is cpu. Choose from"
    ) as refusal:
        chosen_precision(asked, "cpu", known)
    assert "\n" not in str(refusal.value) and asked not in refusal.value.remedy.replace(",", "").split()
    assert chosen_precision(asked, "cuda:1", known) == asked


def test_float16_is_refused_before_anything_is_written(small, tmp_path):
    recipe = recipe_for("bilstm", precision="float16", epochs=1, min_steps=1)
    model = models.build("bilstm", input_dim=small.feature_spec.dim, num_classes=len(small.classes))
    with pytest.raises(TalError, match="float16 needs a CUDA GPU"):
        training.fit(model, small, small.recordings("train"), recipe, 0, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()
