"""How scripted a benchmark is: known answers, and bounds that hold for any sequences."""

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tal_lib.data import composition as comp
from tal_lib.data import load_benchmark

SEQUENCES = st.lists(st.lists(st.sampled_from("abc"), max_size=8), min_size=1, max_size=8)


def test_known_entropies():
    assert comp.entropy("aabb") == 1 and comp.entropy("abcd") == 2 and comp.entropy("aa") == 0
    assert comp.entropy([]) == 0
    assert comp.conditional_entropy(["abab", "ab"]) == 0  # b always follows a, and a follows b
    # after a: a or b, equally often; after b: always a
    assert comp.conditional_entropy(["aab", "aa", "ab", "ba", "ba"]) == pytest.approx(4 / 6)


@given(SEQUENCES)
def test_what_was_before_never_adds_uncertainty(sequences):
    following = [label for sequence in sequences for label in sequence[1:]]
    value = comp.conditional_entropy(sequences)
    assert 0 <= value <= comp.entropy(following) + 1e-9 <= math.log2(3) + 1e-6


@given(SEQUENCES)
def test_the_conditional_entropy_by_its_definition(sequences):
    pairs = [pair for sequence in sequences for pair in zip(sequence, sequence[1:])]
    expected = sum(
        comp.entropy([second for first, second in pairs if first == label])
        * sum(first == label for first, _ in pairs)
        / len(pairs)
        for label in {first for first, _ in pairs}
    )
    assert comp.conditional_entropy(sequences) == pytest.approx(expected, abs=1e-9)


def test_seconds_of_action_count_once_and_inside_the_recording():
    rows = [("a", 1, 4, "x"), ("a", 3, 6, "y"), ("a", 3.5, 4, "y"), ("b", 8, 12, "x")]
    table = pd.DataFrame(rows, columns=["recording", "start", "end", "label"])
    assert comp.annotated_seconds(table, pd.Series({"a": 10.0, "b": 10.0})) == 5 + 2


def test_segments_that_touch_do_not_overlap():
    """0.1 + 0.2 s is 5e-17 s behind 0.3 s."""
    rows = [("a", 0.0, 0.1 + 0.2, "x"), ("a", 0.3, 1.0, "y"), ("a", 0.9, 2.0, "x"), ("b", 5.0, 6.0, "x")]
    table = pd.DataFrame(rows, columns=["recording", "start", "end", "label"])
    between = comp.gaps(table)
    assert between.tolist() == [0.0, -0.1] and (between < 0).tolist() == [False, True]


def test_sequences_are_in_the_order_of_time():
    rows = [("b", 5, 6, "y"), ("b", 1, 2, "x"), ("b", 1, 1.5, "z")]
    table = pd.DataFrame(rows, columns=["recording", "start", "end", "label"])
    assert comp.label_sequences(table, ["a", "b"]) == [(), ("z", "x", "y")]


def test_hapt_follows_a_script_and_the_recomposed_one_does_not(real_data):
    real_data("hapt/hapt.zip")
    scripted, mixed = (comp.composition(load_benchmark(name)) for name in ("hapt", "hapt_recomposed"))
    assert scripted.same_sequence == 45 / 61 and mixed.same_sequence == 1 / 61
    assert (scripted.recordings, scripted.people, scripted.segments) == (61, 30, 1214)
    assert round(scripted.hours, 2) == 6.24
    assert scripted.next_label_bits < 0.6 and mixed.next_label_bits > 3.2
    assert scripted.label_bits == pytest.approx(mixed.label_bits)
