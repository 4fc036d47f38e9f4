"""AR@AN against the challenge's definition, walked proposal by proposal."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib import TalError
from tal_lib.evaluation import area_under_recall, average_recall

TIOUS = (0.5, 0.7, 0.9)


def official(annotations, proposals, numbers, tious):
    """The definition as in the challenge's script: fractions of each recording's proposals, rounded down."""
    videos = list(annotations.recording.unique())
    ratio = max(numbers) * len(videos) / max(1, len(proposals))
    kept, total = {}, 0
    for video in videos:
        ranked = proposals[proposals.recording == video]
        ranked = ranked.iloc[np.argsort(ranked.score.to_numpy(), kind="stable")[::-1]]
        count = min(int(len(ranked) * ratio), len(ranked))
        kept[video] = ranked.iloc[:count]
        total += count
    answers = []
    for number in numbers:
        recalled = {tiou: 0 for tiou in tious}
        for video in videos:
            ranked = kept[video]
            count = min(int(len(ranked) * (number / max(total, 1) * len(videos))), len(ranked))
            for truth in annotations[annotations.recording == video].itertuples():
                best = 0.0
                for proposal in ranked.iloc[:count].itertuples():
                    inter = max(0.0, min(truth.end, proposal.end) - max(truth.start, proposal.start))
                    best = max(
                        best, inter / (truth.end - truth.start + proposal.end - proposal.start - inter)
                    )
                for tiou in tious:
                    recalled[tiou] += best >= tiou
        answers.append(np.mean(list(recalled.values())) / len(annotations))
    return answers


@st.composite
def tables(draw):
    def table(videos, size, name):
        rows = [
            (
                draw(st.sampled_from(videos)),
                start := draw(st.integers(0, 12)),
                start + draw(st.integers(1, 8)),
                draw(st.integers(0, 4)) / 4 if name == "score" else "a",
            )
            for _ in range(size)
        ]
        return pd.DataFrame(rows, columns=["recording", "start", "end", name])

    return table(["u", "v"], draw(st.integers(1, 6)), "label"), table(
        ["u", "v", "w"], draw(st.integers(0, 25)), "score"
    )


@settings(deadline=None, max_examples=60)
@given(both=tables())
def test_average_recall_is_the_official_one(both):
    annotations, proposals = both
    numbers = (1, 2, 5, 9)
    got = average_recall(annotations, proposals, numbers, TIOUS)
    assert got.tolist() == pytest.approx(official(annotations, proposals, numbers, TIOUS))
    assert got.index.tolist() == list(numbers) and got.is_monotonic_increasing


def test_perfect_and_absent_proposals():
    annotations = pd.DataFrame(
        {"recording": ["r", "r"], "start": [0.0, 5.0], "end": [3.0, 9.0], "label": "a"}
    )
    proposals = annotations.assign(score=[0.9, 0.8])
    recall = average_recall(annotations, proposals)
    assert recall[1] == 0.5 and recall[2] == 1 and recall[100] == 1
    assert area_under_recall(recall) == pytest.approx(100 * (0.75 + 98) / 100)
    assert average_recall(annotations, proposals.iloc[:0])[100] == 0
    assert np.isnan(average_recall(annotations.iloc[:0], proposals)[100])


def test_proposals_that_are_none_are_refused():
    annotations = pd.DataFrame({"recording": ["r"], "start": [0.0], "end": [3.0], "label": "a"})
    with pytest.raises(TalError, match="recording r: proposal 2.0–1.0 s ends before"):
        average_recall(
            annotations, pd.DataFrame({"recording": ["r"], "start": [2.0], "end": [1.0], "score": [1.0]})
        )
    with pytest.raises(TalError, match="columns missing: score"):
        average_recall(annotations, annotations)
