import pandas as pd
import pytest
import torch

from tal_lib import TalError, models
from tal_lib.data import collate, make_item
from tal_lib.models.parts.candidates import Candidates, combine_streams
from tal_lib.models.parts.fusion import LateFusion


def members(name, small, seeds=(0, 1)):
    made = {}
    for seed, (stream, dim) in zip(seeds, small.feature_spec.streams.items()):
        torch.manual_seed(seed)
        made[stream] = models.build(name, input_dim=dim, num_classes=len(small.classes)).eval()
        for parameter in made[stream].parameters():
            noise = 0.5 if name in ("bilstm", "window_cnn") else 0.05  # so that something is found
            parameter.data.add_(noise * torch.randn_like(parameter))
    return made


def columns(small):
    return {stream: small.feature_spec.columns(stream) for stream in small.feature_spec.streams}


@pytest.mark.parametrize("name", models.names())
def test_all_weight_on_one_stream_is_that_stream(name, small):
    made = members(name, small)
    first, second = made
    recording = small.recordings("test")[0]
    alone = made[first].detect(collate([make_item(small, recording, first)]))[0]
    fused = LateFusion(made, columns(small), {first: 1.0, second: 0.0}).detect(
        collate([make_item(small, recording)])
    )[0]
    assert len(fused) and len(alone)
    best = alone.head(3).reset_index(drop=True)
    pd.testing.assert_frame_equal(fused.head(3).reset_index(drop=True), best, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["actionformer", "tridet", "local_global", "gaf", "bilstm", "stale"])
def test_scores_are_averaged_where_the_candidates_are_the_same(name, small):
    """Both streams' columns the same and both models the same: late fusion is the model."""
    made = members(name, small, seeds=(0, 0))
    batch = collate([make_item(small, small.recordings("test")[0], "rgb")])
    twice = type(batch)(**{**vars(batch), "features": batch.features.repeat(1, 2, 1)})
    alone, fused = made["rgb"].detect(batch)[0], LateFusion(made, columns(small)).detect(twice)[0]
    pd.testing.assert_frame_equal(alone, fused, atol=1e-3, rtol=1e-3)


def test_support_by_hand():
    make = lambda *rows: Candidates(
        torch.tensor([row[:2] for row in rows]),
        torch.tensor([row[2] for row in rows]),
        torch.tensor([row[3] for row in rows]),
    )
    first_stream = make((0.0, 10.0, 0.8, 0), (20.0, 30.0, 0.6, 1))
    second_stream = make((0.0, 5.0, 0.4, 0), (0.0, 10.0, 0.1, 0), (20.0, 30.0, 1.0, 0))
    combined = combine_streams([[first_stream], [second_stream]], [0.75, 0.25])[0]
    score = dict(
        zip(
            map(tuple, torch.cat([combined.segments, combined.labels[:, None].float()], 1).tolist()),
            combined.scores.tolist(),
        )
    )
    assert combined.segments.shape == (5, 2)
    first = [
        value
        for key, value in zip(combined.segments.tolist(), combined.scores.tolist())
        if key == [0.0, 10.0]
    ]
    assert sorted(first) == pytest.approx(sorted([0.75 * 0.8 + 0.25 * 0.2, 0.25 * 0.1 + 0.75 * 0.8]))
    assert score[20.0, 30.0, 1.0] == pytest.approx(0.45)  # the other stream sees another class there
    assert score[20.0, 30.0, 0.0] == pytest.approx(0.25)
    assert score[0.0, 5.0, 0.0] == pytest.approx(0.25 * 0.4 + 0.75 * 0.4)


def test_what_cannot_be_fused_is_refused(small):
    made = members("bilstm", small)
    with pytest.raises(TalError, match="a weight of at least 0"):
        LateFusion(made, columns(small), {"rgb": 1.0})
    with pytest.raises(TalError, match="models of the same kind"):
        LateFusion({"rgb": made["rgb"], "flow": members("window_cnn", small)["flow"]}, columns(small))
