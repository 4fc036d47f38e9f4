import torch

from tal_lib.models.parts.boundary_votes import BoundaryVotes

REACH = 4


def votes_of(segments, steps=40, certainty=20.0):
    """Votes (1, T, 4) that are right for these segments."""
    part = BoundaryVotes(2, REACH)
    distance, near = part.targets(torch.zeros(1, steps, 4), [segments])
    return part, torch.cat([distance, torch.where(near, certainty, -certainty)], -1)


def test_targets_are_the_signed_distances_to_the_nearest_ends():
    segments = torch.tensor([[10.25, 20.0], [23.0, 30.0]])
    distance, near = BoundaryVotes(2, REACH).targets(torch.zeros(1, 40, 4), [segments])
    for step in range(40):
        for end in (0, 1):
            away = min((float(value) - step for value in segments[:, end]), key=abs)
            assert bool(near[0, step, end]) == (abs(away) <= REACH)
            if near[0, step, end]:
                torch.testing.assert_close(distance[0, step, end], torch.tensor(away / REACH))


def test_right_votes_move_a_rough_segment_to_the_right_ends():
    truth = torch.tensor([[10.25, 20.0]])
    part, votes = votes_of(truth)
    rough = truth + torch.tensor([[1.5, -2.0]])
    refined = part.refine(rough, torch.zeros(1, dtype=torch.long), votes)
    assert (refined - truth).abs().max() < 0.35 * (rough - truth).abs().max()


def test_without_a_vote_a_segment_stays():
    part, votes = votes_of(torch.zeros(0, 2))
    rough = torch.tensor([[3.2, 9.9], [-2.0, 50.0]])
    torch.testing.assert_close(
        part.refine(rough, torch.zeros(2, dtype=torch.long), votes), rough, atol=1e-3, rtol=0
    )


def test_an_end_moves_by_at_most_the_reach():
    part, _ = votes_of(torch.zeros(0, 2))
    wild = torch.full((1, 40, 4), 100.0)
    rough = torch.tensor([[3.0, 9.0]])
    assert ((part.refine(rough, torch.zeros(1, dtype=torch.long), wild) - rough).abs() <= REACH).all()


def test_the_loss_is_zero_for_right_votes_and_padding_has_no_part():
    segments = torch.tensor([[10.0, 20.0]])
    part, votes = votes_of(segments)
    mask = torch.ones(1, 40, dtype=torch.bool)
    assert part.loss(votes, mask, [segments]) < 1e-6
    votes[:, 35:] = 50.0
    assert part.loss(votes, mask, [segments]) > 1
    mask[:, 35:] = False
    assert part.loss(votes, mask, [segments]) < 1e-6
    assert torch.isfinite(part.loss(votes, mask, [torch.zeros(0, 2)]))
