import pytest
import torch

from tal_lib import TalError, models
from tal_lib.data import FeatureSpec
from tal_lib.training import Trained, load_model, save_model


@pytest.fixture
def path(tmp_path):
    model = models.build("window_cnn", input_dim=4, num_classes=2, stride=1)
    spec = FeatureSpec(stride_s=1.0, window_s=1.0, streams={"one": 4})
    return save_model(tmp_path / "m.pt", Trained(model, ("x", "y"), spec, None))


def test_options_come_back(path):
    assert load_model(path).model.config.stride == 1


def test_broken_checkpoints_are_named(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TalError, match="m.pt.*not a readable checkpoint"):
        load_model(path)
    torch.save([1, 2], path)
    with pytest.raises(TalError, match="m.pt.*holds list"):
        load_model(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(TalError, match="m.pt.*no 'classes'"):
        load_model(path)
    with pytest.raises(TalError, match="not found"):
        load_model(path.with_name("none.pt"))


def test_wrong_weights_are_refused(path):
    content = torch.load(path, weights_only=True)
    content["spec"]["num_classes"] = 5
    torch.save(content, path)
    with pytest.raises(TalError, match="m.pt.*does not fit"):
        load_model(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    torch.save({"spec": Bomb()}, tmp_path / "m.pt")
    with pytest.raises(TalError):
        load_model(tmp_path / "m.pt")
    assert not (tmp_path / "exploded").exists()
