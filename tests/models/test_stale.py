import math

import numpy as np
import pytest
import torch

from tal_lib import TalError, models
from tal_lib.data import collate, make_item
from tal_lib.data.batches import Item
from tal_lib.models import stale
from tal_lib.models.parts.foreground import sine_positions
from tal_lib.models.parts.instance_masks import (
    best_step,
    consistency_loss,
    dice,
    focal_cross_entropy,
    focal_of_mean,
    from_relative,
    mask_loss,
    mask_runs,
    middle_windows,
    pooled,
    released_consistency_loss,
    released_mask_loss,
)
from tal_lib.training import Trained, load_model, save_model


def test_focal_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])  # p = ½, ½ and ¾, ¼
    targets = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    wanted = [0.25 * math.log(2), 0.5 * (1 / 16 * -math.log(0.75) + 9 / 16 * -math.log(0.25))]
    assert focal_cross_entropy(logits, targets, 2.0).tolist() == pytest.approx(wanted)


def test_dice_by_hand():
    p, t = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert dice(p, t).tolist() == pytest.approx([1 - 4 / 4.25, 0.0])


def test_mask_loss_by_hand():
    """Four steps: 0 and 1 of one instance, 2 background, 3 padding."""
    instances, valid = torch.tensor([[0, 0, -1, -1]]), torch.tensor([[True, True, True, False]])
    perfect = torch.full((1, 4, 4), -50.0)
    perfect[0, :2, :2] = 50.0
    assert float(mask_loss(perfect, instances, valid, 0.4)) == pytest.approx(0.0, abs=1e-6)
    # all logits zero: balanced cross-entropy is log 2;
    # a row of the instance has p = ½ on three valid steps, two of them true
    assert float(mask_loss(torch.zeros(1, 4, 4), instances, valid, 0.4)) == pytest.approx(
        0.4 * math.log(2) + 0.6 * (1 - (2 * 1.0 + 1) / (0.75 + 2 + 1))
    )
    # nothing but background: no dice, and the half that the positives would weigh is missing
    assert float(mask_loss(torch.zeros(1, 4, 4), torch.full((1, 4), -1), valid, 0.4)) == pytest.approx(
        0.4 * 0.5 * math.log(2), rel=0.01
    )


def test_consistency_by_hand():
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]])
    valid = torch.tensor([[True, True, False]])
    far = torch.tensor(100.0)
    only = lambda step: torch.diag_embed(torch.where(torch.arange(3) == step, far, -far))[None]
    logits = torch.zeros(1, 3, 2)
    logits[0, :, 1] = torch.tensor([-100.0, 100.0, -100.0])  # step 0 is of a class
    assert float(consistency_loss(x, logits, only(0), valid)) == pytest.approx(0, abs=1e-5)
    assert float(consistency_loss(x, logits, only(1), valid)) == pytest.approx(1, abs=1e-5)
    assert pooled(x, torch.tensor([[1.0, 3.0, 0.0]])).tolist() == [[0.25, 0.75]]


def test_recording_loss_spreads_over_the_classes_present():
    model = models.build("stale", input_dim=4, num_classes=3)
    logits, foreground = torch.zeros(2, 4, 4), torch.zeros(2, 4)
    labels, valid = torch.tensor([[0, 2, 3, 3], [3, 3, 3, 3]]), torch.ones(2, 4, dtype=torch.bool)
    assert float(model.recording_loss(logits, foreground, labels, valid)) == pytest.approx(
        (2 / 3) ** 2 * math.log(3)
    )
    assert float(model.recording_loss(logits[1:], foreground[1:], labels[1:], valid[1:])) == 0


def test_relative_masks_count_from_their_step():
    rows = torch.arange(2 * 3 * 5).reshape(2, 3, 5).float()
    absolute = from_relative(rows)
    for n, i, j in np.ndindex(2, 3, 3):
        assert absolute[n, i, j] == rows[n, i, j - i + 2]


def test_every_step_belongs_to_the_window_around_it():
    windows = middle_windows(300, 4, 64, 128)
    for step, window in enumerate(windows.tolist()):
        distances = [abs(step - (64 * w + 63.5)) for w in range(4)]
        assert distances[window] == min(distances) and 64 * window <= step < 64 * window + 128


def test_runs_of_a_mask_around_a_step():
    rows = torch.tensor([[0.9, 0.1, 0.5, 0.9, 0.7, 0.3, 0.9, 0.9]])
    at, end = torch.tensor([3]), torch.tensor([7])
    segments, agreement = mask_runs(rows, at, end, (0.4, 0.6, 0.95))
    assert segments[:2].tolist() == [[1.5, 4.5], [2.5, 4.5]]  # the last step is behind the end
    whole = 0.9 + 0.1 + 0.5 + 0.9 + 0.7 + 0.3 + 0.9
    assert agreement.tolist() == pytest.approx([2.1 / (3 + whole - 2.1), 1.6 / (2 + whole - 1.6), 0.0])


def test_the_best_step_of_a_run():
    scores = torch.tensor([[0.1, 0.9], [0.7, 0.2], [0.8, 0.3], [0.2, 0.4]])
    first, last, label = torch.tensor([0, 0, 1]), torch.tensor([1, 3, 3]), torch.tensor([0, 0, 1])
    assert best_step(scores, first, last, label).tolist() == [1, 2, 3]


def test_decoding_finds_what_was_planted():
    """Two instances side by side and one across a window's end, drawn as probabilities and masks."""
    model = models.build("stale", input_dim=4, num_classes=2)
    steps, window = 200, model.config.window
    truth = [(10, 30, 0), (30, 44, 1), (110, 150, 1)]
    starts = model.starts(steps, None).tolist()
    probabilities, masks = torch.zeros(len(starts), window, 2), torch.zeros(len(starts), window, window)
    for row, start in enumerate(starts):
        for first, last, label in truth:
            inside = slice(max(0, first - start), max(0, last - start))
            probabilities[row, inside, label] = 0.95
            masks[row, inside, inside] = 0.97
    mask = torch.ones(1, steps, dtype=torch.bool)
    candidates = model.decode(probabilities, masks, mask)[0]
    best = (
        torch.cat([candidates.segments, candidates.labels[:, None]], 1)[candidates.scores > 0.9]
        .unique(dim=0)
        .tolist()
    )
    assert best == [[first - 0.5, last - 0.5, label] for first, last, label in truth]


def test_foreground_masks_the_attention():
    """The text reads only the steps that the foreground leaves it."""
    attention = stale.Attention(8, 2, 0.0).eval()
    text, steps = torch.randn(1, 2, 8), torch.randn(1, 6, 8)
    weights = torch.tensor([1.0, 1, 0, 0, 0, 0])[None, :, None]
    assert torch.allclose(
        attention.attend(text, steps, weights), attention.attend(text, steps[:, :2], None), atol=1e-4
    )
    # and a weight multiplies: one step with weight ½ twice is as good as once
    twice = torch.cat([steps[:, :2], steps[:, 1:2]], 1)
    half = torch.tensor([1.0, 0.5, 0.5])[None, :, None]
    assert torch.allclose(
        attention.attend(text, twice, half), attention.attend(text, steps[:, :2], None), atol=1e-5
    )


def released(**options):
    return models.build(
        "stale",
        input_dim=8,
        num_classes=3,
        form="released",
        text="words",
        width=16,
        mask_width=8,
        window=20,
        overlap=0,
        embedding_layers=0,
        relative_masks=False,
        learn_scale=False,
        scale=100.0,
        **options,
    )


def test_paper_has_the_published_parameters():
    """Counted on the authors' code, without CLIP and without layers that its forward pass never calls."""
    model = models.build("stale", input_dim=512, num_classes=150, preset="paper")
    assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) == 16_184_580
    assert len(model.embedding) == 0 and isinstance(model.to_text, torch.nn.Identity)


def test_released_losses_of_a_drawn_window():
    """Values of the authors' code on the same tensors of 100 steps, six features and four classes."""
    at = torch.arange(100.0)
    masks = 3 * torch.sin(0.05 * at[:, None] * (1 + 0.02 * at))[None]
    logits = 2 * torch.cos(0.1 * at[:, None] * (1 + torch.arange(5.0)))[None]
    x = torch.sin(0.3 * at[:, None] + torch.arange(6.0))[None]
    labels, instances = torch.full((1, 100), 4), torch.full((1, 100), -1)
    for number, (first, last, label) in enumerate([(10, 30, 1), (40, 45, 3)]):
        labels[0, first:last], instances[0, first:last] = label, number
    valid = torch.ones(1, 100, dtype=torch.bool)
    assert float(focal_of_mean(logits[valid], labels[valid])) == pytest.approx(2.1635535, abs=1e-5)
    assert float(released_mask_loss(masks, instances, valid, 0.4)) == pytest.approx(0.8318496, abs=1e-5)
    assert float(released_consistency_loss(x, logits, masks, valid)) == pytest.approx(0.4654278, abs=1e-5)


def test_positions_of_the_foreground_transformer():
    """Values of the authors' code: channels of the row, which are constant, then those of the step."""
    at = sine_positions(100, 512)[[0, 49, 99]][:, [2, 256, 257, 258]]
    wanted = [[-0.4225294, 0.0627905, 0.9980267, 0.0584363], [-0.4225294, 0, -1, 0.2163890]]
    torch.testing.assert_close(at[:2], torch.tensor(wanted), atol=1e-5, rtol=0)
    torch.testing.assert_close(at[2], torch.tensor([-0.4225294, 0, 1, -0.4225243]), atol=1e-5, rtol=0)


def test_released_recording_loss_takes_the_first_class_present():
    model = released()
    window, valid = torch.tensor([[1.0, 0.0, 3.0], [5.0, 5.0, 5.0]]), torch.ones(2, 4, dtype=torch.bool)
    labels = torch.tensor([[3, 2, 1, 3], [3, 3, 3, 3]])  # class 3 is the background
    cost = math.log(math.e + 1 + math.e**3)  # class 1 has logit 0; the second window has no class
    assert float(model.released_recording_loss(window, labels, valid)) == pytest.approx(
        (1 - math.exp(-cost)) ** 2 * cost, rel=1e-6
    )
    assert float(model.released_recording_loss(window[1:], labels[1:], valid[1:])) == 0


def test_released_form_ignores_padding():
    """Two windows of 20 steps; the second one ends after three. In float64, without rounding."""
    torch.manual_seed(0)
    model = released().double().eval()
    x = torch.randn(2, 8, 37, dtype=torch.float64)
    mask = torch.arange(37) < torch.tensor([[37], [23]])
    with torch.no_grad():
        batched, alone = model(x * mask[:, None], mask), model(x[1:, :, :23])
    logits, foreground, masks, features, window = ((both[2:], single) for both, single in zip(batched, alone))
    torch.testing.assert_close(*window)
    for both, single in (logits, foreground, masks, features):
        torch.testing.assert_close(both[0], single[0])
        torch.testing.assert_close(both[1, :3], single[1, :3])


def test_released_form_teaches_every_parameter():
    torch.manual_seed(0)
    model = released().train()
    features = torch.randn(8, 37)
    item = Item(
        recording="r",
        features=features,
        duration=37.0,
        stride_s=1.0,
        window_s=1.0,
        classes=tuple("abc"),
        segments=torch.tensor([[2.5, 9.5], [24.5, 30.5]]),
        labels=torch.tensor([0, 2]),
    )
    model.class_names = ("a", "b", "c")
    batch = collate([item])
    losses = model.loss(model.run(batch), batch)
    losses["total"].backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.requires_grad)
    assert losses.keys() == {"total", "step", "recording", "mask", "foreground", "consistency"}


def test_released_classifier_reads_steps_with_an_above_average_mask():
    """What the masks leave out has no influence on the class scores, and scores like any empty step."""
    torch.manual_seed(0)
    model = released().eval()
    model.snippet.forward = lambda queries, steps, weights: steps  # no step sees another
    model.mask_conv.forward = lambda x, keep: torch.cat([x[..., :8], x[..., 8:] * 0], -1)[..., :8]
    x = torch.zeros(1, 20, 16)
    x[:, :, 0] = 5.0
    weight = torch.full((20,), -1.0)
    weight[4:9] = 1.0  # the masks of five steps are above the mean
    with torch.no_grad():
        model.mask_out.weight.zero_()[0, 0] = weight
        x[:, :, 1:] = torch.randn(1, 20, 15)
        keep = torch.ones(1, 20, 1)
        logits = model.windows(x, keep)[0]
        other = x.clone()
        other[:, 9:, 8:] += 1.0
        changed = model.windows(other, keep)[0]
    torch.testing.assert_close(logits, changed)
    assert (logits[0, 9:] == logits[0, 9]).all() and not (logits[0, 4:9] == logits[0, 9]).any()


@pytest.mark.parametrize("options", [{"relative_masks": True}, {"width": 18, "heads": 2}])
def test_the_released_form_refuses_what_it_does_not_have(options):
    with pytest.raises(TalError, match="form=released"):
        models.build("stale", input_dim=8, num_classes=3, preset="paper", **options)


@pytest.mark.parametrize("name", ["stale", "text_pyramid"])
def test_other_names_are_other_classes(name, small, tmp_path):
    model = models.build(name, input_dim=small.feature_spec.dim, num_classes=len(small.classes)).eval()
    batch = collate([make_item(small, small.recordings("test")[0])])
    model.detect(batch)
    logits = model.run(batch)[0]
    assert logits.shape[-1] == len(small.classes) + (name == "stale") and model.class_names == small.classes
    some = type(batch)(**{**vars(batch), "classes": small.classes[3:5]})
    table = model.detect(some)[0]
    assert set(table.label) <= set(small.classes[3:5]) and model.num_classes == 2
    if name == "text_pyramid":  # a class's logit depends on its own text alone
        assert torch.allclose(model.run(some)[0], logits[..., 3:5], atol=1e-5)
    save_model(tmp_path / "m.pt", Trained(model, small.classes[3:5], small.feature_spec, None))
    again = load_model(tmp_path / "m.pt")
    assert again.model.class_names == small.classes[3:5] and torch.equal(again.model.text, model.text)
    assert again.model.detect(some)[0].equals(table)
