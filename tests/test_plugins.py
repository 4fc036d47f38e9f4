"""Models and benchmarks of strangers: from one file outside the repository, or from an installed package."""

import os
import subprocess
import sys
from functools import partial

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tal_lib import TalError, data, models, plugins, sweeps
from tal_lib.cli import main
from tal_lib.cost import profile
from tal_lib.data import registry as benchmarks
from tal_lib.files import REPOSITORY
from tal_lib.models.parts import registry
from tal_lib.sweeps.ledger import read_ledger

DETECTOR = """
from dataclasses import dataclass
import torch
from tal_lib.models import register
from tal_lib.models.parts.conv import TemporalConv, masked, to_keep
from tal_lib.models.parts.dense import DenseConfig, DenseDetector
from tal_lib.validation import OddSize, Size

@dataclass(frozen=True, kw_only=True)
class AveragerConfig(DenseConfig):
    width: Size = 16
    kernel: OddSize = 5

@register("averager", family="dense", paper=AveragerConfig(width=32), compact=AveragerConfig())
class Averager(DenseDetector):
    def __init__(self, config, input_dim, num_classes):
        super().__init__(config, input_dim, num_classes)
        self.first = TemporalConv(input_dim, config.width, config.kernel)
        self.last = TemporalConv(config.width, num_classes + 1)

    def forward(self, features, mask=None):
        keep = to_keep(mask, features)
        x = torch.relu(self.first(masked(features.transpose(1, 2), keep), keep))
        return (self.last(masked(x, keep), keep),)
"""
BENCHMARK = """
from tal_lib.data import register_benchmark, synthetic

def load(root):
    config = synthetic.SyntheticConfig(train_recordings=4, test_recordings=2, median_duration_s=30.0)
    benchmark = synthetic.load(config)
    benchmark.name = "mine"
    return benchmark

register_benchmark("mine", load, about="a stranger's")
"""
NOTEBOOK = [
    ("parameters", 'model: str = "bilstm"\nout_dir: str = ""'),
    (
        "",
        "import pandas as pd\nfrom tal_lib import models\nfrom tal_lib.sweeps import record\n"
        "network = models.build(model, input_dim=8, num_classes=3)\n"
        "count = sum(p.numel() for p in network.parameters())\n"
        'table = pd.DataFrame([{"model": model, "params": count}])\n'
        'record(out_dir, {"size": table}, config=[network.config])',
    ),
]


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    """Every test begins and ends without plug-ins."""
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.setattr(plugins, "_seen", set())
    monkeypatch.setattr(plugins, "_broken", {})
    monkeypatch.setattr(plugins, "_entry_points", lambda: [])
    models.names()
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    monkeypatch.setattr(benchmarks, "BENCHMARKS", dict(benchmarks.BENCHMARKS))


@pytest.fixture
def detector(tmp_path):
    (tmp_path / "averager.py").write_text(DETECTOR)
    return str(tmp_path / "averager.py")


def test_a_detector_from_one_file_trains_and_is_measured(detector, tmp_path, small, capsys, monkeypatch):
    monkeypatch.setattr("tal_lib.data.load_benchmark", lambda name, root=None, **_: small)
    monkeypatch.setattr("tal_lib.cost.profile", partial(profile, min_seconds=0.02))
    short = ["--set", "epochs=1", "--set", "min_steps=2", "--set", "kernel=3", "--out", str(tmp_path / "out")]
    assert main(["train", "averager", *short]) == 2  # without the plug-in
    assert "unknown model 'averager'" in capsys.readouterr().err
    assert main(["train", "averager", *short, "--plugin", detector]) == 0
    assert (tmp_path / "out" / "model.pt").is_file() and (tmp_path / "out" / "detections.json").is_file()
    assert (
        main(["cost", "averager", "--length", "32", "--dim", "8", "--threads", "1"]) == 0
    )  # in another process
    assert "averager (compact)" in capsys.readouterr().out
    assert main(["train", "averager", *short, "--set", "kernel=4"]) == 2
    assert "averager: kernel: 4 is not an odd number" in capsys.readouterr().err
    assert main(["models"]) == 0 and detector in capsys.readouterr().out


def test_a_sweep_has_it_in_its_cells(detector, tmp_path, monkeypatch):
    cells = [
        new_code_cell(source, metadata={"tags": [tag]} if tag else {}, id=f"c{number}")
        for number, (tag, source) in enumerate(NOTEBOOK)
    ]
    about = {"kernelspec": {"name": "python3", "display_name": "p", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=about), tmp_path / "size.ipynb")
    (tmp_path / "grid.yaml").write_text("cells: [{notebook: size.ipynb, grid: {model: dense}}]")
    where = ["--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs")]
    assert main(["sweep", str(tmp_path / "grid.yaml"), *where, "--plugin", detector]) == 0
    records = read_ledger(tmp_path / "results" / "ledger" / "grid.jsonl").values()
    sizes = {record["parameters"]["model"]: record["tables"]["size"][0]["params"] for record in records}
    assert set(sizes) == {"averager", "bilstm", "window_cnn"}
    (code,) = (record["code"] for record in records if record["parameters"]["model"] == "averager")
    assert "plugin/averager.py" in code  # wherever the file lies
    built = models.build("averager", input_dim=8, num_classes=3)
    assert sizes["averager"] == sum(parameter.numel() for parameter in built.parameters())


def test_every_model_tests_take_it(detector):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "tests/models/test_every_model.py",
            "-k",
            "averager",
            "-p",
            "no:cacheprovider",
        ],
        cwd=REPOSITORY,
        env=os.environ | {plugins.VARIABLE: detector},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "test_padding_changes_nothing[averager]" in done.stdout, done.stdout[
        -2000:
    ]


def test_a_benchmark_from_one_file(tmp_path, capsys):
    (tmp_path / "b.py").write_text(BENCHMARK)
    assert main(["data", "check", "mine"]) == 2
    assert main(["data", "check", "mine", "--plugin", str(tmp_path / "b.py")]) == 0
    assert main(["data", "list"]) == 0 and "a stranger's" in capsys.readouterr().out
    assert data.load_benchmark("mine").name == "mine" and data.shape_of("mine").num_classes == 20
    (tmp_path / "g.yaml").write_text("cells: [{notebook: 01_data.ipynb, parameters: {benchmark: mine}}]")
    assert len(sweeps.plan(tmp_path / "g.yaml")) == 1


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nonesuch_module", "ModuleNotFoundError: No module named 'nonesuch_module'"),
        ("def", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        (DETECTOR + "\n1 / 0", "ZeroDivisionError"),
        (DETECTOR.replace("kernel: OddSize = 5", "kernel: OddSize = 4"), "kernel: 4 is not an odd number"),
        (DETECTOR.replace('"averager"', '"bilstm"'), "two models are called 'bilstm'"),
        (DETECTOR.replace('"averager"', '"../x"'), "cannot be part of a file's name"),
        (DETECTOR.replace('"averager"', '"dense"'), "a model cannot be called dense"),
        (DETECTOR.replace("compact=AveragerConfig()", ""), "no preset compact"),
        (BENCHMARK.replace('"mine"', '"hapt"'), "two benchmarks are called 'hapt'"),
    ],
)
def test_a_broken_plugin_is_one_line_where_it_is_asked_for(source, reason, tmp_path, capsys, monkeypatch):
    file = tmp_path / "averager.py"
    file.write_text(source)
    monkeypatch.setenv(plugins.VARIABLE, str(file))
    assert main(["models"]) == 0  # the others work, and the list says so
    shown = capsys.readouterr().out
    assert reason in shown.splitlines()[-1] and "not loaded" in shown.splitlines()[-1]
    assert "averager" not in models.names() and "bilstm" in models.names()
    with pytest.raises(TalError) as error:
        models.config("averager")
    assert reason in str(error.value) and len(str(error.value).splitlines()) == 1
    with pytest.raises(TalError, match="unknown model 'nonesuch'.*Not loaded: .*averager"):
        models.config("nonesuch")
    assert (
        main(["cost", "bilstm", "--length", "8", "--dim", "4", "--plugin", str(file)]) == 2
    )  # named: refused at once
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("name", ["none.py", "folder", "text.txt"])
def test_what_is_no_plugin(name, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.txt").write_text("")
    assert main(["data", "list", "--plugin", str(tmp_path / name)]) == 2
    assert "plug-in not found" in capsys.readouterr().err
    assert not os.environ[plugins.VARIABLE]


def test_an_installed_package_is_found(monkeypatch):
    class Point:
        name, value = "averager", "their_package.averager"

        def load(self):
            exec(compile(DETECTOR, "their.py", "exec"), {"__name__": "their_package.averager"})

    class Broken(Point):
        value = "other_package:thing"

        def load(self):
            raise ImportError("no other_package")

    sys.modules["their_package.averager"] = sys.modules[__name__]
    monkeypatch.setattr(
        plugins, "_entry_points", lambda: [("tal.models", Point()), ("tal.benchmarks", Broken())]
    )
    try:
        assert "averager" in models.names() and models.family("averager") == "dense"
    finally:
        del sys.modules["their_package.averager"]
    assert plugins.broken() == {"other_package": plugins.broken()["other_package"]}
    assert plugins.broken()["other_package"].startswith("ImportError: no other_package")


def test_a_broken_file_of_the_library_stops_only_its_model(monkeypatch):
    """As if afsd.py had a fault: gaf, which is made of it, is named too."""
    import importlib

    real = importlib.import_module

    def faulty(name, *more):
        if name in ("tal_lib.models.afsd", "tal_lib.models.gaf"):
            raise NameError("name 'Tensro' is not defined")
        return real(name, *more)

    kept = {name: entry for name, entry in registry._MODELS.items() if name not in ("afsd", "gaf")}
    monkeypatch.setattr(registry, "_MODELS", kept)
    monkeypatch.setattr(registry, "_broken", {})
    monkeypatch.setattr(registry.importlib, "import_module", faulty)
    registry._load_package.__wrapped__()
    for name in ("afsd", "gaf"):
        with pytest.raises(
            TalError, match=f"model {name} cannot be loaded: NameError: name 'Tensro'.*bilstm"
        ):
            models.config(name)
    assert models.build("bilstm", input_dim=4, num_classes=2)
    assert "afsd" not in models.names() and len(models.names()) == 15


def test_processes_are_started_anew_when_a_plugin_changes(detector, monkeypatch):
    from tal_lib.process import fork_server

    before = fork_server._code()
    plugins.use(detector)
    named = fork_server._code()
    os.utime(detector, ns=(1, 1))
    assert before != named != fork_server._code()


def test_the_contents_of_plugins_do_not_depend_on_their_folder(detector, tmp_path, monkeypatch):
    copy = tmp_path / "elsewhere" / "averager.py"
    copy.parent.mkdir()
    copy.write_text(DETECTOR)
    monkeypatch.setenv(plugins.VARIABLE, detector)
    first = plugins.contents()
    monkeypatch.setenv(plugins.VARIABLE, str(copy))
    assert plugins.contents() == first and set(first) == {"averager.py"}
    copy.write_text(DETECTOR + "\n")
    changed = plugins.contents()
    assert changed != first
    monkeypatch.setenv(plugins.VARIABLE, os.pathsep.join([detector, str(copy), str(tmp_path / "none.py")]))
    both = plugins.contents()
    assert set(both) == {"averager.py"} and both not in (first, changed)
