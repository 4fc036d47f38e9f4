"""Localization of features that arrive in parts: equal to the whole recording where it is promised."""

from dataclasses import fields, is_dataclass

import numpy as np
import pytest
import torch

from tal_lib import TalError, models
from tal_lib.data import collate
from tal_lib.data.batches import unannotated
from tal_lib.models.parts.blocks import DropPath
from tal_lib.models.parts.streamed import MARGINS, WHY_NOT, Streamed, Windows, _reach, windows_for

CLASSES = ("a", "b", "c")
SMALL = {
    "window_cnn": {"width": 16},
    "bilstm": {},
    "temporalmaxer": {"width": 16, "head_width": 16},
    "actionformer": {"width": 16, "head_width": 16},
    "text_pyramid": {"width": 16, "head_width": 16},
}


def built(name, **options):
    torch.manual_seed(0)
    model = models.build(name, input_dim=8, num_classes=3, **SMALL.get(name, {}), **options).eval()
    model.class_names = CLASSES  # random text vectors, where a model reads names
    return model


def whole_and_streamed(model, steps, windows):
    """(detections of the whole recording, detections in windows, the stream)"""
    features = torch.randn(8, steps, generator=torch.Generator().manual_seed(1))
    item = unannotated("r", features, steps * 0.5, 0.5, 1.0, CLASSES)
    streamed = Streamed(model, CLASSES, windows)
    held = 0
    for step in features.T:
        streamed.push(step)
        held = max(held, len(streamed.rows))
    ours = streamed.finish("r", steps * 0.5, 0.5, 1.0)
    assert streamed.steps == steps and held <= windows.window
    return model.detect(collate([item]))[0], ours, streamed


def same(first, second, tolerance):
    """Whether two tables of detections agree, up to the order of equal scores."""
    assert len(first) == len(second) > 0
    by = ["label", "start", "end"]
    first, second = (table.round({"start": 2, "end": 2}).sort_values(by) for table in (first, second))
    for column in ("start", "end", "score"):
        values = (torch.tensor(table[column].to_numpy()) for table in (first, second))
        torch.testing.assert_close(*values, atol=tolerance, rtol=0)
    return True


@pytest.mark.parametrize(
    ("name", "steps", "window", "tolerance"),
    [
        ("window_cnn", 301, 128, 1e-5),
        ("window_cnn", 192, 128, 1e-5),  # the last window ends where a window would begin
        ("bilstm", 517, 256, 1e-5),
        ("temporalmaxer", 1099, 768, 1e-5),
        ("actionformer", 2600, 64, 1e-5),
        ("text_pyramid", 2600, 64, 1e-5),
    ],
)
def test_windows_give_the_answer_of_the_whole_recording(name, steps, window, tolerance):
    model = built(name)
    windows = windows_for(model, window)
    assert windows.joined and windows.overlap >= 2 * MARGINS[name] and windows.window >= window
    whole, ours, streamed = whole_and_streamed(model, steps, windows)
    assert len(streamed.sizes) > 1 and same(whole, ours, tolerance)


SEVEN = ((0, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, 128), (128, 10_000))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("temporalmaxer", {}),
        ("temporalmaxer", {"head_layers": 5, "embedding_layers": 4, "embedding_kernel": 7}),
        ("temporalmaxer", {"ranges": SEVEN, "neck_norm": "layer"}),
        ("temporalmaxer", {"stem_blocks": 9}),  # it has no blocks
        ("actionformer", {}),
        ("actionformer", {"window": 19, "embedding_kernel": 5}),  # as published
        ("actionformer", {"stem_blocks": 5, "ranges": SEVEN}),
        ("actionformer", {"window": 1, "embedding_kernel": 1, "stem_blocks": 9}),
        ("text_pyramid", {"window": 19, "head_layers": 3}),
    ],
)
def test_no_output_depends_on_features_beyond_the_margin(name, options):
    """A change of one step reaches every output that depends on it; branches count in full."""
    model = built(name, **options).double()
    for module in model.modules():
        if isinstance(module, DropPath):
            torch.nn.init.ones_(module.scale)  # at the start of training it is 1e-4
    margin, reach = windows_for(model).overlap // 2, _reach(model.config)
    at = 1024
    features = torch.randn(1, 8, 2 * at + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    changed = features.clone()
    changed[..., at] += 100
    with torch.inference_mode():
        pairs = zip(model(features), model(changed))
    position = model.points(features.shape[2]).position
    seen = torch.stack([(first != second)[0].flatten(1).any(1) for first, second in pairs]).any(0)
    farthest = float((position[seen] - at).abs().max())
    assert reach / 3 < farthest <= reach <= margin


def test_a_short_recording_is_one_window():
    model = built("local_global", width=16, head_width=16)
    whole, ours, streamed = whole_and_streamed(model, 100, Windows(128, 32, "global attention"))
    assert streamed.sizes == [100] and same(whole, ours, 1e-6)


def test_candidates_are_merged_where_outputs_cannot_be_joined():
    model = built("bsn")
    windows = windows_for(model, 256)
    assert not windows.joined and (windows.window, windows.overlap) == (256, model.config.overlap)
    _, ours, streamed = whole_and_streamed(model, 500, windows)
    assert streamed.sizes == [256, 256, 116] and ours.start.max() > 200


def test_every_model_says_whether_windows_are_exact_and_why_not():
    known = set(MARGINS) | set(WHY_NOT)
    assert known | {"timeline_prior"} >= set(models.names()) and not set(MARGINS) & set(WHY_NOT)
    assert windows_for(built("temporalmaxer", norm="instance")).why == WHY_NOT["local_global"]


def test_global_attention_is_named_where_it_is_used():
    assert windows_for(built("local_global")).why == "instance norm over the recording"
    why = windows_for(built("local_global", latents=4)).why
    assert why == "global attention and instance norm over the recording"


def test_options_that_see_more_need_a_wider_margin_or_end_the_equality():
    assert windows_for(built("bilstm", sequence=96, context=32), 64).overlap >= 2 * 128
    assert windows_for(built("window_cnn", window=64, stride=16), 64).overlap >= 2 * 80
    assert windows_for(built("temporalmaxer", ranges=SEVEN)).overlap > 2 * MARGINS["temporalmaxer"]
    for options in ({"neck_norm": "group"}, {"preset": "paper"}, {"preset": "paper_activitynet"}):
        made = models.build("temporalmaxer", input_dim=8, num_classes=3, **{"width": 16} | options)
        assert windows_for(made).why
    assert "global attention" in windows_for(built("actionformer", global_levels=2)).why
    assert "positions" in windows_for(built("temporalmaxer", position_steps=512)).why


def size_of(kept):
    """Bytes of the storages of all tensors in lists, tuples and dataclasses."""
    if isinstance(kept, torch.Tensor):
        return kept.untyped_storage().nbytes()
    if is_dataclass(kept):
        kept = [getattr(kept, field.name) for field in fields(kept)]
    return sum(size_of(part) for part in kept)


def peak_and_kept(model, windows, count):
    """(peak of torch's memory, bytes of the outputs or candidates kept) after `count` windows."""
    streamed, rng = Streamed(model, CLASSES, windows), np.random.default_rng(0)
    steps = windows.window + (count - 1) * (windows.window - windows.overlap) + 1
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        for _ in range(steps):
            streamed.push(rng.standard_normal(8, dtype=np.float32))
    events = [event for event in profile.kineto_results.events() if event.name() == "[memory]"]
    assert len(streamed.sizes) == count and set(streamed.sizes) == {windows.window}
    return int(np.cumsum([event.nbytes() for event in events]).max()), size_of(
        [streamed.outputs, streamed.parts]
    )


@pytest.mark.parametrize("name", ["window_cnn", "bsn"])  # outputs are joined; candidates are merged
def test_memory_of_localization_does_not_grow_with_the_video(name):
    """Ten windows need as much as two, apart from the outputs or candidates, a fixed number per window."""
    model = built(name)
    windows = windows_for(model, 128)
    (two, kept_of_two), (ten, kept_of_ten) = (peak_and_kept(model, windows, count) for count in (2, 10))
    assert 0 < kept_of_two < kept_of_ten <= 5 * kept_of_two
    assert ten - kept_of_ten == pytest.approx(two - kept_of_two, rel=0.01)


def test_windows_must_be_wider_than_their_overlap():
    with pytest.raises(TalError, match="window=32, overlap=32"):
        Streamed(built("window_cnn"), CLASSES, Windows(32, 32))
    with pytest.raises(TalError, match="no feature step"):
        Streamed(built("window_cnn"), CLASSES).finish("r", 1.0, 0.5, 1.0)
