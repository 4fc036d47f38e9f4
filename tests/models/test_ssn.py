"""Watershed grouping against a walk over the basins; the pyramid and the roles of proposals by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib import TalError, models
from tal_lib.models.ssn import (
    BACKGROUND,
    COMPLETE,
    INCOMPLETE,
    UNUSED,
    actionness_groups,
    contrast,
    roles,
    training_segments,
)

LEVELS = (0.1, 0.3, 0.5, 0.75, 0.9)


def walk(curve, levels):
    """Basin by basin, as the paper tells it."""
    groups = set()
    for level in levels:
        basins, step = [], 0
        while step < len(curve):
            last = step
            while last < len(curve) and curve[last] > level:
                last += 1
            if last > step:
                basins.append((step, last))
            step = last + 1
        for least in levels:
            for seed, (first, end) in enumerate(basins):
                wet = end - first
                for start, stop in basins[seed + 1 :]:
                    if (wet + stop - start) / (stop - first) < least:
                        break
                    wet, end = wet + stop - start, stop
                groups.add((first - 0.5, end - 0.5))
    return sorted(groups)


@settings(deadline=None)
@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_groups_equal_a_walk_over_the_basins(values):
    assert [tuple(group) for group in actionness_groups(np.array(values), LEVELS).tolist()] == walk(
        values, LEVELS
    )


def test_more_basins_than_a_block_of_seeds():
    curve = np.tile([0.9, 0.2, 0.6, 0.0], 200)  # 400 basins at 0.1, 200 at 0.75
    assert [tuple(group) for group in actionness_groups(curve, (0.1, 0.75)).tolist()] == walk(
        curve, (0.1, 0.75)
    )


def test_contrast_by_hand():
    curve = np.array([0.0, 0.2, 0.8, 1.0, 0.4, 0.0])
    assert contrast(curve, np.array([[1.5, 3.5]])).tolist() == pytest.approx([0.9 - (0.2 + 0.4) / 2])
    assert contrast(curve, np.array([[-0.5, 5.5]])).tolist() == pytest.approx([2.4 / 6])  # nothing is outside


def test_pyramid_pools_start_course_and_end():
    model = models.build("ssn", input_dim=4, num_classes=3, width=1).eval()
    x = torch.arange(40.0)[None, :, None]
    seen = {}
    model.activity.register_forward_pre_hook(lambda _, args: seen.update(course=args[0]))
    model.completeness.register_forward_pre_hook(lambda _, args: seen.update(stages=args[0]))
    model.classify(x, torch.tensor([[[10.0, 20.0]]]))
    assert seen["course"][0, 0].tolist() == pytest.approx([15, 12.5, 17.5])
    assert seen["stages"][0, 0].tolist() == pytest.approx([7.5, 15, 12.5, 17.5, 22.5])


def test_roles_of_proposals():
    segments, labels = torch.tensor([[0.0, 10.0], [20.0, 40.0]]), torch.tensor([2, 1])
    proposals = torch.tensor([[0.0, 9.0], [21.0, 24.0], [11.0, 19.0], [0.0, 5.0], [18.0, 22.0]])
    role, label, target, _ = roles(proposals, segments, labels)
    assert role.tolist() == [COMPLETE, INCOMPLETE, BACKGROUND, UNUSED, UNUSED]
    assert label[:2].tolist() == [2, 1] and target[1].tolist() == [20, 40]


def test_roles_as_the_authors_code_has_them():
    """On THUMOS14 one percent inside a segment is incomplete; background has at least 2 % of the steps."""
    segments, labels = torch.tensor([[0.0, 10.0], [20.0, 40.0]]), torch.tensor([2, 1])
    proposals = torch.tensor([[0.0, 9.0], [18.0, 22.0], [11.0, 19.0], [11.0, 12.0], [0.0, 5.0]])
    role = roles(proposals, segments, labels, 0.01, 0.02 * 100)[0]
    assert role.tolist() == [COMPLETE, INCOMPLETE, BACKGROUND, UNUSED, UNUSED]
    assert roles(proposals, segments, labels, 0.7)[0].tolist() == [
        COMPLETE,
        UNUSED,
        BACKGROUND,
        BACKGROUND,
        UNUSED,
    ]


def test_paper_has_the_published_heads_and_suppression():
    for preset, tiou, count, inside in (("paper", 0.2, 2000, 0.01), ("paper_activitynet", 0.6, 60, 0.7)):
        model = models.build("ssn", input_dim=16, num_classes=5, preset=preset)
        assert (model.activity.in_features, model.completeness.in_features) == (512, 5 * 512)
        post = model.config.post
        assert (post.nms, post.nms_tiou, post.max_detections, post.voting_tiou) == ("hard", tiou, count, 0)
        assert model.drop.p == 0.8 and model.config.incomplete_inside == inside


@pytest.mark.parametrize("preset", ["compact", "paper"])
def test_score_is_activity_times_completeness(preset):
    """In the paper's preset the background takes no share of the softmax."""
    model = models.build("ssn", input_dim=16, num_classes=2, preset=preset)
    activity, completeness = torch.tensor([[[1.0, 2.0, 5.0]]]), torch.tensor([[[0.5, -0.5]]])
    segments, exist = torch.tensor([[[2.0, 6.0]]]), torch.ones(1, 1, dtype=torch.bool)
    outputs = (None, None, segments, exist, activity, completeness, torch.zeros(1, 1, 2, 2))
    scores = model.candidates(outputs, torch.ones(1, 20, dtype=torch.bool))[0].scores
    shares = torch.tensor([1.0, 2.0, 5.0] if preset == "compact" else [1.0, 2.0]).softmax(0)[:2]
    torch.testing.assert_close(scores, shares * torch.tensor([-0.5, -1.5]).exp())


def test_losses_of_drawn_proposals():
    """By hand: hinge of all complete and the hardest sixth of the incomplete, smooth L1 of the complete."""
    model = models.build("ssn", input_dim=16, num_classes=2, preset="paper")
    completeness = torch.tensor([[0.4, 0.0], [0.0, -0.2], *[[-3.0, -3.0]] * 5])
    role, label = torch.tensor([COMPLETE] + [INCOMPLETE] * 6), torch.tensor([0, 1, 0, 0, 0, 0, 0])
    segment = torch.tensor([[0.0, 10.0]]).expand(7, -1)
    target = torch.tensor([[2.0, 22.0]]).expand(7, -1)  # shift 0.7, log scale log 2
    regression = torch.zeros(7, 2, 2)
    regression[0, 0] = torch.tensor([2.7, 0.0])
    losses = model.proposal_losses(role, label, target, segment, torch.zeros(7, 3), completeness, regression)
    assert float(losses["completeness"]) == pytest.approx(0.1 * (0.6 + 0.8) / 2)
    assert float(losses["location"]) == pytest.approx(0.1 * (2.0 - 0.5 + np.log(2) ** 2 / 2))


def test_training_segments_are_whole_and_parts():
    torch.manual_seed(0)
    segments, labels = torch.tensor([[10.0, 30.0], [50.0, 58.0]]), torch.tensor([0, 1])
    role, label, *_ = roles(training_segments(segments), segments, labels)
    assert role.tolist() == [COMPLETE] * 2 + [INCOMPLETE] * 12 and label.tolist() == [0, 1] * 7


def test_binary_and_class_actionness():
    assert models.build("ssn", input_dim=8, num_classes=5, actionness="binary").actionness.out_features == 1
    assert models.build("ssn", input_dim=8, num_classes=5).actionness.out_features == 5
    with pytest.raises(TalError, match="binary or class"):
        models.build("ssn", input_dim=8, num_classes=5, actionness="some")
