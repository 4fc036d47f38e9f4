import numpy as np
import pytest
import torch

from tal_lib.data.augment import Augment
from tal_lib.data.batches import Item
from tal_lib.data.inertial import Inertial

MEAN, STD = np.linspace(-1, 1, 24, dtype=np.float32), np.linspace(0.5, 2, 24, dtype=np.float32)
SENSORS = Inertial(4, MEAN, STD)  # two sensors, three axes, four samples


def item(name, value, *segments):
    """Features that say where they come from: background −value, and value within the segments."""
    features = torch.full((24, 40), -float(value))
    for start, end, _ in segments:
        features[:, start : end + 1] = value
    return Item(
        recording=name,
        features=features,
        duration=40.0,
        stride_s=1.0,
        window_s=1.0,
        classes=("walk", "sit"),
        segments=torch.tensor([[s, e] for s, e, _ in segments]).float(),
        labels=torch.tensor([k for *_, k in segments]),
    )


A, B = item("a", 1, (3, 9, 0), (20, 30, 1)), item("b", 2, (5, 6, 0), (8, 38, 0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def signals(features):
    return (features.numpy() * STD[:, None] + MEAN[:, None]).reshape(2, 3, 4, -1)


def test_a_rotation_turns_all_sensors_alike_and_keeps_their_strength():
    features = torch.randn(24, 7, generator=generator(1))
    turned = SENSORS.rotated(features, 30, generator())
    before, after = signals(features), signals(turned)
    assert np.allclose(np.linalg.norm(before, axis=1), np.linalg.norm(after, axis=1), atol=1e-4)
    solved, *_ = np.linalg.lstsq(
        before.transpose(0, 2, 3, 1).reshape(-1, 3), after.transpose(0, 2, 3, 1).reshape(-1, 3), rcond=None
    )
    assert np.allclose(solved @ solved.T, np.eye(3), atol=1e-3) and np.linalg.det(solved) == pytest.approx(
        1, abs=1e-3
    )
    assert not np.allclose(solved, np.eye(3), atol=0.05)


def test_one_stream_is_turned_as_its_columns_of_all_are():
    features = torch.randn(24, 7, generator=generator(1))
    whole = SENSORS.rotated(features, 30, generator(5))
    assert torch.allclose(
        SENSORS.of(slice(12, 24)).rotated(features[12:], 30, generator(5)), whole[12:], atol=1e-6
    )


def test_exchanged_steps_come_from_the_class_and_the_rest_stays():
    augment = Augment([A, B], None, generator(), exchange=1.0)
    seen = set()
    for _ in range(20):
        changed = augment(A)
        walk, sit = changed.features[:, 3:10], changed.features[:, 20:31]
        assert torch.equal(sit, A.features[:, 20:31])  # the only instance of its class
        assert len(walk.unique()) == 1
        seen.add(float(walk.unique()))
        outside = torch.ones(40, dtype=bool)
        outside[3:10] = outside[20:31] = False
        assert torch.equal(changed.features[:, outside], A.features[:, outside])
        assert torch.equal(changed.segments, A.segments)
    assert (
        seen == {1.0, 2.0} and float(A.features[:, 3:10].unique()) == 1.0
    )  # the recording itself is not changed


def test_without_augmentation_nothing_is_drawn():
    chosen = generator()
    before = chosen.get_state()
    assert Augment([A, B], SENSORS, chosen)(A) is A and torch.equal(chosen.get_state(), before)
    assert Augment([A, B], None, chosen, rotate=20)(A) is A  # no sensors, nothing to turn


def test_the_same_generator_gives_the_same_crop():
    first, second = (
        Augment([A, B], SENSORS, generator(3), exchange=0.5, rotate=20)(A).features for _ in range(2)
    )
    assert torch.equal(first, second)
