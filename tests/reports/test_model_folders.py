"""Model folders: `tal collect` writes them from runs, `tal detect` uses them, `tal publish` uploads them."""

import importlib.util
import json
import shutil
import sys
from types import SimpleNamespace
from unittest.mock import create_autospec

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import RepositoryNotFoundError

from tal_lib import TalError, models
from tal_lib.cli import main
from tal_lib.data import load_benchmark
from tal_lib.evaluation import read_detections
from tal_lib.exported import Exported
from tal_lib.files import REPOSITORY
from tal_lib.reports import layout, model_folders, publish
from tal_lib.sweeps import plan
from tal_lib.training import Trained, load_model, save_model
from tal_lib.training.checkpoints import CONFIG, FOLDER, WEIGHTS, Statistics, folder_files
from tal_lib.video.detect import ready

GRID = """
name: small
cells:
  - notebook: 02_train_evaluate.ipynb
    parameters: {benchmark: synthetic}
    grid: {model: [temporalmaxer, window_cnn]}
"""
FEW = {
    "nms": "none",
    "max_candidates": 50,
    "max_detections": 20,
}  # of untrained models, which would give many
SMALL = {"temporalmaxer": {"width": 16, "head_width": 16, **FEW}, "window_cnn": FEW}


def trained_on(data, model, dtype=np.float32):
    torch.manual_seed(0)
    built = models.build(
        model, input_dim=data.feature_spec.dim, num_classes=len(data.classes), **SMALL[model]
    )
    return Trained(built.eval(), data.classes, data.feature_spec, None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A grid and its runs, as a sweep leaves them; the models are untrained."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "small.yaml").write_text(GRID)
    data = load_benchmark("synthetic")
    for cell in plan(folder / "small.yaml"):
        run = folder / "runs" / "other_sweep" / cell.id
        run.mkdir(parents=True)
        trained = trained_on(data, cell.parameters["model"])
        save_model(run / "model.pt", trained)
        scored = model_folders.Scored(benchmark=data, model=trained.model)
        rows = [{"tiou": tiou, "map": value} for tiou, value in scored.scores.items()]
        record = {
            "id": cell.id,
            "sweep": "other_sweep",
            "notebook": cell.notebook.name,
            "parameters": cell.parameters,
            "tables": {"data_efficiency": rows},
            "provenance": {"data_hash": data.data_hash, "git_commit": "abc", "utc": "2026-01-01T00:00:00Z"},
        }
        (run / "cell.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def collected(finished):
    """The model folders of the grid, float16."""
    out = finished / "models"
    list(model_folders.collect(finished / "small.yaml", out, runs=finished / "runs", dtype="float16"))
    return out / "synthetic"


@pytest.fixture
def folder(collected, tmp_path):
    """A copy of one model folder, to damage."""
    return shutil.copytree(collected / "temporalmaxer", tmp_path / "folder")


def collect(finished, out, **options):
    return list(model_folders.collect(finished / "small.yaml", out, runs=finished / "runs", **options))


# the format


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_model_comes_back(dtype, tmp_path):
    data = load_benchmark("synthetic")
    trained, rng = trained_on(data, "temporalmaxer"), np.random.default_rng(0)
    mean, std = rng.normal(size=(2, data.feature_spec.dim)).astype(np.float32)
    given = Trained(*list(vars(trained).values())[:4], Statistics(mean, np.abs(std)))
    for name, content in folder_files(given, dtype, {}).items():
        (tmp_path / name).write_bytes(content)
    again = load_model(tmp_path)
    assert again.classes == trained.classes and again.feature_spec == trained.feature_spec
    assert again.model.config == trained.model.config
    assert np.array_equal(again.statistics.mean, mean) and again.statistics.mean.dtype == np.float32
    assert np.array_equal(again.statistics.std, np.abs(std))
    for name, value in trained.model.state_dict().items():
        stored = again.model.state_dict()[name]
        assert stored.dtype == value.dtype
        assert torch.equal(stored, value if dtype == "float32" else value.half().float())


def test_statistics_are_those_of_the_benchmark(tmp_path):
    """The same features, to the last bit, as a benchmark that standardises."""
    from tal_lib.data.standardise import standardise

    raw = {
        name: np.random.default_rng(i).normal(3, 2, (9, 4)).astype(np.float32) for i, name in enumerate("ab")
    }
    known = standardise(raw, ["a"])
    assert np.array_equal(Statistics(known.mean, known.std).standardised(raw["b"]), known.load("b"))


NO = b'"standardise": null'
ONE_1, ONE_0 = (b'"standardise": {"dtype": "float32", "mean": [1], "std": [%d]}' % std for std in (1, 0))
DAMAGES = [
    (CONFIG, lambda old: old[:50], "not valid JSON"),
    (CONFIG, lambda old: b'{"model_type": "bert"}', "format is missing"),
    (CONFIG, lambda old: old.replace(b'"window_s": ', b'"window_s": -'), "feature_spec.window_s"),
    (CONFIG, lambda old: old.replace(b'"float16"', b'"int8"'), "weights.dtype: 'int8'"),
    (CONFIG, lambda old: old.replace(NO, ONE_1), "mean: 1 values for"),
    (CONFIG, lambda old: old.replace(NO, ONE_0), "std.1: 0 is not above 0"),
    (CONFIG, None, "description of the model not found"),
    (WEIGHTS, lambda old: old[:-1], "not the weights that config.json describes"),
    (WEIGHTS, None, "weights not found"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "message"), DAMAGES, ids=[d[2] for d in DAMAGES])
def test_a_damaged_folder_is_named(folder, name, change, message):
    path = folder / name
    content = path.read_bytes()
    path.unlink() if change is None else path.write_bytes(change(content))
    with pytest.raises(TalError, match=message) as error:
        load_model(folder)
    assert str(folder) in str(error.value) and len(str(error.value).splitlines()) == 1


def test_weights_of_another_form_are_refused(folder):
    """Bytes that the description names, but that are no safetensors: a pickle is not read."""
    import hashlib

    torch.save({"weight": torch.ones(2)}, folder / WEIGHTS)
    config = json.loads((folder / CONFIG).read_text())
    config["weights"]["sha256"] = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(TalError, match="model.safetensors: not readable weights"):
        load_model(folder)


# tal collect


def test_collect_writes_folders(finished, collected):
    for name in SMALL:
        assert {path.name for path in (collected / name).glob("[!.]*")} == set(FOLDER)
        config = json.loads((collected / name / CONFIG).read_text())
        assert config["weights"]["dtype"] == "float16" and config["training"]["benchmark"] == "synthetic"
        assert config["spec"]["overrides"]["post"]["nms"] in ("soft", "hard", "none")
        card = (collected / name / "README.md").read_text()
        for part in (
            "# " + name,
            "## Intended use",
            "## Limits",
            "float16",
            "mAP@0.5",
            "@misc{efficient_tal",
        ):
            assert part in card, part
        assert f"{100 * config['training']['avg_map']:.2f}" in card
        assert publish.check_card(card, "card").license == "mit"
        data = ModelCard(card).data  # as the Hub's own client reads it
        assert data.license == "mit" and "temporal-action-localization" in data.tags


def test_collect_says_how_the_stored_weights_differ(finished, tmp_path):
    half = dict(collect(finished, tmp_path / "half", dtype="float16"))
    whole = dict(collect(finished, tmp_path / "whole"))
    assert {stored.dtype for stored in whole.values()} == {"float32"}
    assert all(stored.difference == 0 for stored in whole.values())
    assert all(0 < stored.difference < 0.01 for stored in half.values())
    assert not collect(finished, tmp_path / "whole", only={"model": "window_cnn"})[0][1].difference  # again


def test_collect_stays_below_the_limit(finished, tmp_path):
    size = sum((finished / "runs").rglob("model.pt").__next__().stat().st_size for _ in [0])
    assert {s.dtype for _, s in collect(finished, tmp_path / "a", most_bytes=4 * size + 40_000)} == {
        "float16"
    }
    with pytest.raises(TalError, match="MB together, at most"):
        collect(finished, tmp_path / "b", most_bytes=10_000)
    assert not list((tmp_path / "b").rglob(WEIGHTS))
    with pytest.raises(TalError, match="or --dtype float16"):
        collect(finished, tmp_path / "b", dtype="float32", most_bytes=10_000)


def test_collect_replaces_only_what_it_wrote(finished, tmp_path):
    card = tmp_path / "synthetic" / "window_cnn" / "README.md"
    card.parent.mkdir(parents=True)
    card.write_text("mine")
    with pytest.raises(TalError, match="was not written by this program"):
        collect(finished, tmp_path)
    assert card.read_text() == "mine" and not list(tmp_path.rglob(WEIGHTS))


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (GRID.replace("synthetic", "sfinge3d"), "sfinge3d: licence of its data: none stated"),
        (GRID.replace("synthetic}", "synthetic, seed: 7}"), "no finished run of synthetic/temporalmaxer"),
        (GRID.replace("window_cnn]", "window_cnn], fraction: [0.5, 1.0]"), "several cells train synthetic/"),
    ],
)
def test_collect_refuses(finished, tmp_path, monkeypatch, grid, message):
    from tal_lib.sweeps import grid as grids

    if "sfinge3d" in grid:  # planned without its data
        monkeypatch.setattr(grids, "data_hash", lambda benchmark: "0")
        monkeypatch.setattr(grids, "check_fold_of", lambda *_: None)
    (tmp_path / "g.yaml").write_text(grid)
    with pytest.raises(TalError, match=message):
        list(model_folders.collect(tmp_path / "g.yaml", tmp_path / "out", runs=finished / "runs"))
    assert not (tmp_path / "out").exists()


def test_collect_refuses_scores_that_do_not_come_out(finished, tmp_path):
    runs = shutil.copytree(finished / "runs", tmp_path / "runs")
    for path in runs.rglob("cell.json"):
        record = json.loads(path.read_text())
        for row in record["tables"]["data_efficiency"]:
            row["map"] += 0.03
        path.write_text(json.dumps(record))
    with pytest.raises(TalError, match="the stored weights give .* its run gave"):
        list(model_folders.collect(finished / "small.yaml", tmp_path / "out", runs=runs))
    assert not list((tmp_path / "out").rglob(WEIGHTS))


# tal detect


def add_statistics(folder):
    """Write a mean of 5 and a deviation of 2 into a model folder; returns the number of columns."""
    config = json.loads((folder / CONFIG).read_text())
    width = config["spec"]["input_dim"]
    values = {"dtype": "float32", "mean": [5.0] * width, "std": [2.0] * width}
    (folder / CONFIG).write_text(json.dumps(config | {"standardise": values}))
    return width


@pytest.fixture
def raw(folder, tmp_path):
    """A model folder with statistics, and a recording as it is in its file."""
    shape = (60, add_statistics(folder))
    np.save(tmp_path / "walk.npy", np.random.default_rng(1).normal(5, 2, shape).astype(np.float32))
    return folder, tmp_path / "walk.npy"


def by_hand(folder, recording):
    chosen = ready(folder)
    from tal_lib.data.batches import collate, unannotated

    features, spec = (np.load(recording) - 5) / 2, chosen.spec
    seconds = (len(features) - 1) * spec.stride_s + spec.window_s
    item = unannotated(
        "walk", torch.from_numpy(features.T.copy()), seconds, spec.stride_s, spec.window_s, chosen.classes
    )
    return chosen.model.detect(collate([item]))[0]


def test_detect_standardises_and_needs_no_training(raw, tmp_path):
    folder, recording = raw
    assert main(["detect", str(recording), "--model", str(folder), "--out", str(tmp_path / "out")]) == 0
    table, expected = read_detections(tmp_path / "out" / "detections.json"), by_hand(folder, recording)
    assert len(table) and len(table) == len(expected)
    assert np.allclose(np.sort(table.score), np.sort(expected.score), atol=1e-5)


def test_short_names(collected, monkeypatch, tmp_path, capsys):
    results = tmp_path / "results"
    (results / "tables").mkdir(parents=True)
    shutil.copytree(collected.parent, results / "models")
    monkeypatch.chdir(tmp_path)
    assert (
        layout.model_place("synthetic/window_cnn").resolve()
        == results / "models" / "synthetic" / "window_cnn"
    )
    np.save("walk.npy", np.zeros((30, load_benchmark("synthetic").feature_spec.dim), np.float32))
    assert main(["detect", "walk.npy", "--model", "synthetic/window_cnn"]) == 0
    assert main(["detect", "walk.npy", "--model", "synthetic/tridet"]) == 2
    assert "synthetic/temporalmaxer, synthetic/window_cnn" in capsys.readouterr().err
    shutil.rmtree(results / "models")
    monkeypatch.setattr(layout, "in_checkout", lambda: False)
    assert main(["detect", "walk.npy", "--model", "hapt/tridet"]) == 2
    assert "not in the installed package: clone it, and give --model CLONE" in capsys.readouterr().err


def test_an_export_keeps_the_statistics(collected, tmp_path):
    folder = shutil.copytree(collected / "window_cnn", tmp_path / "folder")
    width = add_statistics(folder)
    command = ["export", "window_cnn", "--checkpoint", str(folder), "--format", "torchscript", "--out"]
    assert main([*command, str(tmp_path / "graph")]) == 0
    chosen = ready(tmp_path / "graph", trust=True)
    assert isinstance(chosen.model, Exported)
    assert np.array_equal(chosen.prepared(np.full((3, width), 9.0)), np.full((3, width), 2.0))


def test_the_example_applies_them(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("run_onnx", REPOSITORY / "examples" / "run_onnx.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    statistics = Statistics(np.float32([0.1, 3]), np.float32([0.7, 2]))
    features, path = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32), tmp_path / "s.json"
    assert example.standardised(path, features) is features
    path.write_text(json.dumps(statistics.plain()))
    assert np.array_equal(example.standardised(path, features), statistics.standardised(features))
    for text, message in (("{", "not the statistics"), (json.dumps(statistics.plain()), "statistics of 2")):
        path.write_text(text)
        with pytest.raises(SystemExit):
            example.standardised(path, features[:, :1])
        assert message in capsys.readouterr().err


# tal publish


def missing(*_, **__):
    raise RepositoryNotFoundError("404", response=SimpleNamespace(headers={}, request=None))


@pytest.fixture
def hub():
    """A stand-in with the signatures of the real client: a wrong argument fails."""
    names = ("repo_info", "create_repo", "upload_folder")
    api = SimpleNamespace(**{name: create_autospec(getattr(HfApi(), name)) for name in names})
    api.repo_info.side_effect = missing
    api.upload_folder.return_value = SimpleNamespace(commit_url="https://hub/user/name/commit/1")
    return api


def existing(*files, private=False):
    return SimpleNamespace(private=private, siblings=[SimpleNamespace(rfilename=name) for name in files])


def test_publish_uploads_the_three_files(folder, hub):
    address = publish.publish(publish.check(folder, "user/name"), private=True, api=hub)
    assert address == "https://hub/user/name/commit/1"
    hub.create_repo.assert_called_once_with("user/name", private=True)
    sent = hub.upload_folder.call_args.kwargs
    assert sent["repo_id"] == "user/name" and sent["folder_path"] == folder
    assert sorted(sent["allow_patterns"]) == sorted(FOLDER)


def test_publish_again(folder, hub):
    upload = publish.check(folder, "user/name")
    hub.repo_info.side_effect, hub.repo_info.return_value = None, existing(".gitattributes", *FOLDER)
    publish.publish(upload, api=hub)
    assert not hub.create_repo.called and hub.upload_folder.called


@pytest.mark.parametrize(
    ("about", "options", "message"),
    [
        (existing("pytorch_model.bin"), {}, "holds other files: pytorch_model.bin"),
        (existing(), {"private": True}, "is public, and --private"),
    ],
)
def test_publish_refuses_a_repository(folder, hub, about, options, message):
    hub.repo_info.side_effect, hub.repo_info.return_value = None, about
    upload = publish.check(folder, "user/name")
    with pytest.raises(TalError, match=message):
        publish.publish(upload, api=hub, **options)
    assert not hub.upload_folder.called
    if not options:
        publish.publish(upload, api=hub, overwrite=True)
        assert hub.upload_folder.called


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "model.pt").write_bytes(b"x"), "model.pt: only model.safetensors"),
        (lambda folder: (folder / "notes").mkdir(), "notes: only"),
        (lambda folder: (folder / "README.md").unlink(), "model card not found"),
        (lambda folder: (folder / "README.md").write_text("# a card"), "no front matter"),
        (lambda folder: (folder / "README.md").write_text("---\ntags: [a]\ndatasets: []\n---\n"), "license"),
        (
            lambda folder: (folder / "README.md").write_text(
                "---\nlicense: My Own\ntags: []\ndatasets: []\n---\n"
            ),
            "license: 'My Own' is not a licence",
        ),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"x"), "not the weights"),
        (lambda folder: (folder / WEIGHTS).unlink(), "weights not found"),
    ],
)
def test_publish_checks_the_folder(folder, change, message):
    change(folder)
    with pytest.raises(TalError, match=message):
        publish.check(folder, "user/name")


@pytest.mark.parametrize("repo", ["name", "user/", "a/b/c", "user/a--b", "user/.a", "user/name.git", "u r/x"])
def test_names_of_repositories(folder, repo):
    with pytest.raises(TalError, match="is not USER/NAME"):
        publish.check(folder, repo)


def test_publish_on_the_command_line(folder, hub, monkeypatch, capsys):
    command = ["publish", str(folder), "--repo", "user/name"]
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "t")
    assert main([*command, "--dry-run"]) == 0
    assert "model.safetensors" in capsys.readouterr().out and not hub.repo_info.called
    assert main(command) == 0 and "https://hub/" in capsys.readouterr().out
    hub.upload_folder.side_effect = OSError("403 Forbidden\nmore")
    assert main(command) == 2 and "OSError: 403 Forbidden). Check" in capsys.readouterr().err
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert main(command) == 2 and "Run `hf auth login`" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(command) == 2 and "pip install -e '.[data]'" in capsys.readouterr().err
    assert main([*command, "--dry-run"]) == 0  # needs no client
