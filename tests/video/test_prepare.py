"""A seeded subset of somebody's files: resumed, checked, and never half there."""

import sys
import types

import numpy as np
import pytest

from tal_lib import TalError
from tal_lib.video import write_video
from tal_lib.video.prepare import prepare


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "origin"
    for index in range(5):
        write_video(folder / "deep" / f"v{index}.mp4", [np.full((16, 16, 3), 40 * index, np.uint8)] * 3, 5)
    (folder / "deep" / "broken.mp4").write_bytes(b"x")
    (folder / "notes.txt").write_text("not a video")
    return folder


def test_a_folder(videos, tmp_path):
    few = prepare(str(videos), tmp_path / "out", count=3, seed=1, progress=False)
    more = prepare(str(videos), tmp_path / "out", count=6, seed=1, progress=False)
    assert few.file.tolist() == more.file.tolist()[:3]  # a larger count keeps those of a smaller one
    assert not more.new[:3][few.problem == ""].any()  # what is there is not fetched again
    assert set(more.file) == {"broken.mp4", *(f"v{index}.mp4" for index in range(5))}
    assert more.set_index("file").problem["broken.mp4"] and not (tmp_path / "out" / "broken.mp4").exists()
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == [
        f"v{index}.mp4" for index in range(5)
    ]
    assert (
        prepare(str(videos), tmp_path / "b", count=3, seed=2, progress=False).file.tolist()
        != few.file.tolist()
    )


def test_published_datasets_come_through_their_clients(videos, tmp_path, monkeypatch):
    asked = []
    hub = types.SimpleNamespace(dataset_download=lambda name: asked.append(name) or str(videos))
    monkeypatch.setitem(sys.modules, "kagglehub", hub)
    assert prepare("kaggle:owner/mirror", tmp_path / "k", count=2, progress=False).shape[
        0
    ] == 2 and asked == ["owner/mirror"]

    class Api:
        def list_repo_files(self, repository, repo_type):
            asked.append((repository, repo_type))
            return ["features/a.npy", "features/b.npy", "README.md"]

    def download(repository, name, repo_type):
        path = tmp_path / "cache" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.zeros((2, 3)))
        return str(path)

    monkeypatch.setitem(
        sys.modules, "huggingface_hub", types.SimpleNamespace(HfApi=Api, hf_hub_download=download)
    )
    table = prepare("hf:owner/features", tmp_path / "h", suffixes=(".npy",), progress=False)
    assert (
        set(table.file) == {"a.npy", "b.npy"}
        and table.new.all()
        and asked[-1] == ("owner/features", "dataset")
    )


def test_an_origin_that_cannot_be_reached_says_so(tmp_path, monkeypatch):
    def refuse(name):
        raise ConnectionError("no route\nto host")

    monkeypatch.setitem(sys.modules, "kagglehub", types.SimpleNamespace(dataset_download=refuse))
    with pytest.raises(TalError, match="not reachable .ConnectionError: no route.*credentials"):
        prepare("kaggle:owner/mirror", tmp_path, progress=False)
    with pytest.raises(TalError, match="not OWNER/NAME"):
        prepare("hf:justaname", tmp_path, progress=False)
    with pytest.raises(TalError, match="folder not found"):
        prepare(str(tmp_path / "nowhere"), tmp_path, progress=False)
    (tmp_path / "some").mkdir()
    with pytest.raises(TalError, match="no .mp4"):
        prepare(str(tmp_path / "some"), tmp_path / "out", progress=False)
