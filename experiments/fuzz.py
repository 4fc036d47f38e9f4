"""Fuzz every file reader: it must return, or raise a `TalError` that names the file.

    pip install -e '.[fuzz]'
    python experiments/fuzz.py --seconds 60                 # all readers, one after another
    python experiments/fuzz.py --only annotations --seconds 600

No reader may execute code from a file. The fuzzer (atheris) is coverage-guided and starts from files that the
library writes. Prints how many inputs each reader saw and how many errors occurred. `--out` writes the same
table.
"""

import argparse
import gzip
import io
import json
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from tal_lib.errors import TalError
from tal_lib.files import REPOSITORY, write_text


def _annotations():
    entry = {
        "subset": "training",
        "duration": 9.5,
        "fps": 30.0,
        "annotations": [{"segment": [0.5, 2.0], "label": "walk", "label_id": 3}],
    }
    text = json.dumps({"version": "1", "database": {"a": entry, "b": entry | {"subset": "test"}}})
    table = (
        "video-name,t-start,t-end,action-label,video-duration,temporal-region-label,fps\n"
        "a,0.5,2,walk,9.5,Action,30\n"
    )
    return [text.encode(), table.encode(), gzip.compress(text.encode())]


def _saved(save):
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def _features_h5():
    import h5py

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.h5"
        with h5py.File(path, "w") as file:
            file["features"] = np.ones((4, 3), np.float32)
        return [path.read_bytes()]


def _features_pt():
    import torch

    return [
        _saved(lambda buffer: torch.save(content, buffer))
        for content in (torch.ones(4, 3), {"feats": torch.ones(4, 3)})
    ]


def _checkpoints():
    from tal_lib import models
    from tal_lib.data import FeatureSpec
    from tal_lib.training import Trained, save_model

    with tempfile.TemporaryDirectory() as folder:
        model = models.build("window_cnn", input_dim=3, num_classes=2, width=4)
        trained = Trained(
            model, ("x", "y"), FeatureSpec(stride_s=1.0, window_s=1.0, streams={"one": 3}), None
        )
        return [save_model(Path(folder) / "m.pt", trained).read_bytes()]


def _grids():
    return [(REPOSITORY / "notebooks" / "sweeps" / "quick.yaml").read_bytes()]


def _read_grid(path):
    from tal_lib.sweeps import plan

    # the notebooks that the first inputs name
    for name in ("01_data.ipynb", "02_train_evaluate.ipynb", "03_inference_cost.ipynb"):
        if not (path.parent.parent / name).exists():
            shutil.copy(REPOSITORY / "notebooks" / name, path.parent.parent)
    plan(path)


def _read_benchmark(path):
    """Read the feature spec of a folder of videos."""
    from tal_lib.data.spec import FolderSpec, read_spec

    read_spec(path.parent, FolderSpec(streams={"one": 3}, stride_s=1.0, window_s=1.0))


def _reader(module, name, *arguments):
    def read(path):
        import importlib

        getattr(importlib.import_module(module), name)(path, *arguments)

    return read


class _AnyDuration(dict):
    """A duration for every recording."""

    def get(self, key, default=None):
        return 1e6


def _exported(kind, *names):
    """A reader of an annotation tool's files, and files in the tool's form."""

    def read(path):
        from tal_lib.data.importing import Options, import_files

        import_files([path], Options(fps=30.0, durations=_AnyDuration()), kind=kind)

    folder = REPOSITORY / "tests" / "data" / "exports"
    return names[0], read, lambda: [(folder / name).read_bytes() for name in names]


_FEATURES = "tal_lib.data.features"
_ONES = np.ones((4, 3), np.float32)
# reader: (name of the file, function that reads it, first inputs)
READERS = {
    "annotations": ("a.json", _reader("tal_lib.data.annotations", "read_annotations"), _annotations),
    "annotations_gz": (
        "a.json.gz",
        _reader("tal_lib.data.annotations", "read_annotations"),
        lambda: _annotations()[2:],
    ),
    "features_npy": (
        "f.npy",
        _reader(_FEATURES, "read_feature_file", 3),
        lambda: [_saved(lambda buffer: np.save(buffer, _ONES))],
    ),
    "features_npz": (
        "f.npz",
        _reader(_FEATURES, "read_feature_file", 3),
        lambda: [_saved(lambda buffer: np.savez(buffer, feats=_ONES))],
    ),
    "features_pt": ("f.pt", _reader(_FEATURES, "read_feature_file", 3), _features_pt),
    "features_h5": ("f.h5", _reader(_FEATURES, "read_feature_file", 3), _features_h5),
    "features_csv": (
        "f.csv",
        _reader(_FEATURES, "read_feature_file", 3),
        lambda: [pd.DataFrame(_ONES).to_csv(index=False).encode()],
    ),
    "feature_spec": (
        "spec.json",
        _read_benchmark,
        lambda: [json.dumps({"stride_s": 1.0, "window_s": 1.0, "streams": {"one": 3}}).encode()],
    ),
    "detections": (
        "d.json",
        _reader("tal_lib.evaluation.detections", "read_detections"),
        lambda: [
            json.dumps(
                {
                    "version": "1",
                    "results": {"a": [{"label": "walk", "score": 0.5, "segment": [0.5, 2.0]}]},
                    "external_data": {},
                }
            ).encode()
        ],
    ),
    "class_scores": (
        "s.json",
        _reader("tal_lib.evaluation.class_scores", "read_class_scores", ("x", "y")),
        lambda: [
            json.dumps(
                {"results": {"a": [0.5, 0.5], "b": [{"label": "x", "score": 1.0}]}, "class": ["x", "y"]}
            ).encode()
        ],
    ),
    "class_scores_pickle": (
        "s.pkl",
        _reader("tal_lib.evaluation.class_scores", "read_class_scores", ("x", "y")),
        lambda: [pickle.dumps({"a": np.ones(2, np.float32)}, protocol) for protocol in (0, 2, 4)],
    ),
    "grids": ("sweeps/g.yaml", _read_grid, _grids),
    "ledgers": (
        "l.jsonl",
        _reader("tal_lib.sweeps.ledger", "read_ledger"),
        lambda: [b'{"id": "a", "tables": {}}\n{"id": "b"}\n'],
    ),
    "clusters": (
        "c.yaml",
        _reader("tal_lib.sweeps.workers", "read_description"),
        lambda: [b"{jobs: 2, gpu: true, cores: 4}\n"],
    ),
    "elan": _exported("elan", "lab.eaf"),
    "via": _exported("via", "via.json"),
    "boris": _exported("boris", "boris.csv", "boris_7.tsv"),
    "label_studio": _exported("label_studio", "label_studio.json", "label_studio_min.json"),
    "cvat": _exported("cvat", "cvat.xml", "cvat_tags.xml"),
    "opentad": (
        "c.py",
        _reader("tal_lib.data.importing.opentad", "parse"),
        lambda: [b'x = "a"\nd = dict(p=x + "b", q=[1, -2.5], r=None)\n'],
    ),
    "checkpoints": ("m.pt", _reader("tal_lib.training", "load_model"), _checkpoints),
}


def try_reader(name: str, data: bytes, folder: Path) -> None:
    """Give one input to a reader. It may return, or raise a `TalError` with the file's name.

    Any other error is raised.
    """
    file, read, _ = READERS[name]
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    try:
        read(path)
    except TalError as error:
        assert str(folder) in str(error), f"the error does not name the file: {error}"


def _fuzz(name, seconds, folder):
    """Fuzz one reader. It needs a separate process, because libFuzzer does not return."""
    import atheris

    with atheris.instrument_imports(include=["tal_lib"]):
        import tal_lib.data.annotations
        import tal_lib.data.features
        import tal_lib.data.importing.opentad
        import tal_lib.data.spec
        import tal_lib.data.videos
        import tal_lib.evaluation.class_scores
        import tal_lib.evaluation.detections
        import tal_lib.sweeps.cluster
        import tal_lib.sweeps.grid
        import tal_lib.sweeps.ledger
        import tal_lib.training  # noqa: F401
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(READERS[name][2]()):
        (corpus / str(number)).write_bytes(seed)
    scratch = Path("/dev/shm") if Path("/dev/shm").is_dir() else folder
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        options = [
            f"-max_total_time={seconds}",
            f"-artifact_prefix={folder}/",
            "-timeout=60",
            "-rss_limit_mb=8000",
        ]
        atheris.Setup([sys.argv[0], str(corpus), *options], lambda data: try_reader(name, data, Path(place)))
        atheris.Fuzz()


def main():
    """Fuzz the readers one after another. The exit code is 1 if any input caused an error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=30, help="seconds per reader")
    parser.add_argument("--only", choices=READERS, help="fuzz only this reader")
    parser.add_argument("--out", help="CSV")
    parser.add_argument("--in-process", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_process:
        return _fuzz(arguments.only, arguments.seconds, Path(arguments.in_process))
    rows = []
    for name in [arguments.only] if arguments.only else READERS:
        with tempfile.TemporaryDirectory(prefix="tal-fuzz-") as folder:
            done = subprocess.run(
                [
                    sys.executable,
                    __file__,
                    "--only",
                    name,
                    "--seconds",
                    str(arguments.seconds),
                    "--in-process",
                    folder,
                ],
                capture_output=True,
                text=True,
                errors="replace",
            )
        counts = [int(number) for number in re.findall(r"^#(\d+)", done.stderr, re.MULTILINE)]
        errors = [
            line
            for line in done.stderr.splitlines()
            if "Uncaught Python exception" in line or "ERROR: libFuzzer" in line
        ]
        rows.append(
            {
                "reader": name,
                "seconds": arguments.seconds,
                "inputs": max(counts, default=0),
                "found": len(errors),
            }
        )
        print(rows[-1], flush=True)
        if done.returncode or errors:
            print("\n".join([*done.stdout.splitlines()[-25:], *done.stderr.splitlines()[-12:]]), flush=True)
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    print(f"{table.inputs.sum():,} inputs, {table.found.sum()} found")
    if arguments.out:
        write_text(arguments.out, table.to_csv(index=False))
    return int(table.found.sum() > 0)


if __name__ == "__main__":
    sys.exit(main())
