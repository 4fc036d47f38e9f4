"""The live demo does no work twice and none for nobody, and its answers stay the same."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tal_lib import TalError
from tal_lib.process.parts import Parts
from tal_lib.video import Reader, backbone, write_video
from tal_lib.video import end_to_end as whole_way
from tal_lib.video import stream as streams
from tal_lib.video.extract import Sampling, Steps
from tal_lib.video.live import Answer, LiveDetector
from tal_lib.video.source import Source
from tal_lib.video.stream import Stream

from .test_live import detector, video, wait_for  # noqa: F401  (a fixture)


def pushed(live, pictures, sizes):
    """The answers to pictures that come in groups of these sizes, in turn."""
    answers, at, turn = [], 0, 0
    while at < len(pictures):
        answers.append(live.push(pictures[at : at + sizes[turn % len(sizes)]]))
        at, turn = at + sizes[turn % len(sizes)], turn + 1
    return [(answer.time_s, answer.label, answer.scores) for answer in answers if answer]


class Eager(LiveDetector):
    """Describes every picture at once."""

    burst = 1


def test_pictures_that_wait_for_each_other_give_the_same_answers():
    shades = np.random.default_rng(0).choice([20, 230], 50).repeat(24 * 32 * 3).astype(np.uint8)
    pictures = shades.reshape(50, 24, 32, 3)
    live, eager = detector(), detector()
    eager.__class__ = Eager
    answers = pushed(live, pictures, [1])
    assert live.burst == 4 and len(answers) == 11 and len({label for _, label, _ in answers}) == 2
    assert answers == pushed(eager, pictures, [1])
    assert np.array_equal(live.recent, eager.recent)


@pytest.mark.parametrize("sizes", [[1], [3, 1, 5]])
def test_bursts_of_hog_hof_are_the_features_of_single_pictures(sizes):
    spec = whole_way._spec("window_cnn", 549, "compact", 3, {}, 16)[0]
    live = whole_way.live_detector(spec, "hog-hof")
    pictures = np.random.default_rng(0).integers(0, 255, (40, 60, 80, 3), dtype=np.uint8)
    pushed(live, pictures, sizes)
    singly = Steps(backbone("hog-hof"), live.sampling)
    steps = [step for picture in pictures for step in singly.push(picture[None])]
    assert live.burst == 8 and len(steps) == 4 and np.array_equal(live.recent, steps)


@pytest.mark.parametrize(("window", "stride"), [(4, 2), (3, 5), (1, 1), (16, 8)])
def test_the_next_step_is_complete_after_the_missing_pictures(window, stride):
    steps, waits = Steps(backbone("hog-hof"), Sampling(fps=8, window=window, stride=stride)), []
    expected = steps.missing
    for count in range(1, 3 * (window + stride)):
        if steps.push(np.zeros((1, 48, 64), np.uint8)):
            waits.append((count, expected))
            expected = count + steps.missing
    assert len(waits) > 2 and all(count == predicted for count, predicted in waits)


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["dark", "bright"]),
            *(st.integers(0, 30).map(float) for _ in range(2)),
            st.floats(0, 1),
        ),
        max_size=20,
    )
)
def test_scores_are_the_best_of_the_detections_that_cover_the_time(rows):
    table = pd.DataFrame(rows, columns=["label", "start", "end", "score"])
    live = detector()
    live.model.detect = lambda batch: [table]
    pictures = np.zeros((12, 24, 32, 3), np.uint8)
    answer = live.push(pictures)  # 12 pictures, 10 a second, 0.4 s back: 0.8 s
    covering = table[(table.start <= answer.time_s) & (answer.time_s < table.end)]
    best = covering.groupby("label").score.max()
    assert answer.scores == {label: float(best.get(label, 0.0)) for label in ("dark", "bright")}


def test_a_file_is_decoded_in_bursts_and_not_far_ahead(tmp_path):
    shades = np.arange(0, 240, 8, dtype=np.uint8)
    path = write_video(tmp_path / "second.mp4", [np.full((24, 32, 3), shade) for shade in shades], 30)
    parts, taken, ahead = Parts(), [], []
    decoding = parts.timed

    def timed(part):
        ahead.append(len(taken))
        return decoding(part)

    def take(picture, index):
        taken.append(picture)

    source = Source(str(path), 30, take, loop=False, burst=4, timed=timed).start()
    wait_for(lambda: source.state == "ended")
    source.stop()
    expected = [*Reader(path, 30)]
    assert len(taken) == len(expected) == 30 and all(map(np.array_equal, taken, expected))
    assert max(number - shown for number, shown in enumerate(ahead)) <= 3 * 4
    assert set(parts.seconds) == {"decoding"}


@pytest.fixture
def resting(video):  # noqa: F811
    """A stream that is not started, so that its pictures come from the test."""
    return Stream(str(video), detector())


def test_a_picture_is_drawn_once_and_only_if_somebody_looks(resting, monkeypatch):
    drawings = []
    draw = streams.draw_action
    monkeypatch.setattr(
        streams, "draw_action", lambda picture, *others: drawings.append(picture) or draw(picture, *others)
    )
    answer = Answer(1.0, "dark", 0.9, {"dark": 0.9, "bright": 0.0}, 0.01)
    for shade in (10, 20, 30):
        resting._publish(np.full((24, 32, 3), shade, np.uint8), answer)
    assert not drawings and "drawing" not in resting.parts.seconds
    first, second = (next(resting.pictures()) for _ in range(2))
    assert first == second and first.startswith(b"\xff\xd8") and len(drawings) == 1
    assert drawings[0][0, 0, 0] == 30  # the newest
    resting._publish(np.full((24, 32, 3), 40, np.uint8), None)
    assert next(resting.pictures()) != first and len(drawings) == 2


def test_a_picture_that_cannot_be_drawn_ends_no_view(resting, monkeypatch):
    resting._publish(np.full((24, 32, 3), 10, np.uint8), None)
    view = resting.pictures(keep_alive_s=0.01)
    shown = next(view)
    resting._publish(np.zeros((24, 32, 7), np.uint8), None)  # no colours
    assert next(view) == shown and resting.failures == 1


def test_a_stream_plays_a_file_once_and_answers_what_is_left(video):  # noqa: F811
    stream = Stream(str(video), detector(), loop=False)
    answers = []
    stream.on_answer = answers.append
    assert stream.play() is stream and not stream.alive and stream.dropped == 0
    pictures = [*Reader(video, stream.source.fps, stream.source.size)]
    assert stream.frames == len(pictures)
    expected = pushed(detector(), np.stack(pictures), [1])
    assert [(answer.time_s, answer.label, answer.scores) for answer in answers] == expected


def test_a_stream_plays_no_longer_than_it_is_told(video):  # noqa: F811
    stream = Stream(str(video), detector()).play(0.5)
    assert 0 < stream.frames + stream.dropped < 10 * 1.5  # 10 pictures a second


def test_a_stream_that_is_lost_is_no_measurement(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(TalError, match="broken.mp4"):
        Stream(str(tmp_path / "broken.mp4"), detector(), loop=False).play(5)


def test_the_page_and_the_notebook_count_the_same_parts():
    assert whole_way.LIVE_PARTS == (*streams.WORK, "drawing")
    assert set(streams.WORK) < set(whole_way.LIVE_PARTS) and "drawing" not in streams.WORK
