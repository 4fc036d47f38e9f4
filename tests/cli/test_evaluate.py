"""`tal eval` on files as people have them: the right score, or one line that says why there is none."""

import json

import pandas as pd
import pytest

from tal_lib.cli import main
from tal_lib.data import load_benchmark
from tal_lib.errors import TalError
from tal_lib.files import REPOSITORY
from tal_lib.reports.tables import read_csv

TRUTH = {
    "v_0123456789a": [("Wave hand", 0, 1.0, 4.0), ("Walk", 1, 5.0, 9.0)],
    "b": [("Sit down", 2, 2.0, 6.0)],
}


@pytest.fixture
def files(tmp_path):
    """`write(name, rows)` writes detections; the folder has the annotations, with and without `label_id`."""

    def database(ids):
        return {
            name: {
                "subset": "testing",
                "duration": 10.0,
                "annotations": [
                    {"label": label, "segment": [start, end]} | ({"label_id": number} if ids else {})
                    for label, number, start, end in rows
                ],
            }
            for name, rows in TRUTH.items()
        }

    for name, ids in (("t.json", False), ("ids.json", True)):
        (tmp_path / name).write_text(json.dumps({"database": database(ids)}))
    return tmp_path


def rows(rename=str, label=lambda name, number: name, times=1):
    return [
        {
            "recording": rename(name),
            "start": times * start,
            "end": times * end,
            "label": label(text, number),
            "score": 0.9,
        }
        for name, segments in TRUTH.items()
        for text, number, start, end in segments
    ]


def write(path, table):
    results = {}
    for row in table:
        item = {"label": row["label"], "score": row["score"], "segment": [row["start"], row["end"]]}
        results.setdefault(row["recording"], []).append(item)
    path.write_text(json.dumps({"results": results}))
    return str(path)


def evaluate(capsys, *arguments):
    code = main(["eval", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("written", "truth"),
    [
        (rows(), "t.json"),
        (rows(rename=lambda name: name.removeprefix("v_")), "t.json"),
        (rows(rename=lambda name: f"v_{name}" if name == "b" else name), "t.json"),
        (rows(label=lambda name, number: number), "ids.json"),
        (rows(label=lambda name, number: str(number)), "ids.json"),
    ],
)
def test_all_found_is_a_hundred(files, capsys, written, truth):
    code, out, err = evaluate(capsys, write(files / "d.json", written), files / truth)
    assert code == 0 and "avg mAP 100.00 %" in out
    assert ("label_id" in err) == (truth == "ids.json")


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_tables_score_as_json_does(files, capsys, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    table = pd.DataFrame(rows()).assign(extra="not read")
    path = files / f"d{suffix}"
    (table.to_parquet if suffix == ".parquet" else table.to_csv)(path, index=False)
    assert "avg mAP 100.00 %" in evaluate(capsys, path, files / "t.json")[1]


def test_a_label_in_another_spelling_is_named_with_its_effect(files, capsys):
    table = rows(label=lambda name, number: name.replace("Wave hand", "Wave_hand"))
    code, out, err = evaluate(capsys, write(files / "d.json", table), files / "t.json")
    assert code == 0 and "avg mAP 66.67 %" in out
    assert "'Wave_hand' (1 detections; did you mean 'Wave hand'?)" in err and "left out" in err


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            rows(label=lambda name, number: number),
            "none of its labels is in the annotations: '0' (1 detections)",
        ),
        (rows(label=lambda name, number: name.upper()), "did you mean 'Wave hand'?"),
        (rows(times=25), "3 of 3 detections lie far beyond their recording"),
        (
            rows(rename=lambda name: f"x_{name}"),
            "recording x_v_0123456789a is not in the annotations (2 such)",
        ),
        ([], "no detections in it"),
    ],
)
def test_what_would_count_as_misses_is_refused(files, capsys, table, message):
    code, out, err = evaluate(capsys, write(files / "d.json", table), files / "t.json")
    assert code == 2 and out == "" and message in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tious", "0"], "(0, 1]"),
        (["--tious", "0.5", "1.5"], "(0, 1]"),
        (["--tious", "nan"], "(0, 1]"),
        (["--tious", "0.5", "0.5"], "distinct"),
        (["--top", "0"], "--top: 0 is not at least 1"),
        (["--split", "training"], "no recordings of subset 'training'"),
    ],
)
def test_options_are_checked_before_files_are_read(files, capsys, arguments, message):
    code, out, err = evaluate(capsys, write(files / "d.json", rows()), files / "t.json", *arguments)
    assert code == 2 and message in err and out == ""
    if arguments[0] != "--split":
        assert message in evaluate(capsys, "none.json", "none.json", *arguments)[2]


def test_subsets_by_the_names_that_files_use(files, capsys):
    path = write(files / "d.json", rows())
    assert "(test)" in evaluate(capsys, path, files / "t.json", "--split", "testing")[1]


def test_proposals_have_recall_alone(files, capsys):
    path = write(files / "p.json", rows(label=lambda name, number: "proposal"))
    code, out, err = evaluate(capsys, path, files / "t.json", "--recall")
    assert code == 0 and "AR@5 100.00" in out and "mAP" not in out and "no mAP" in err
    assert evaluate(capsys, path, files / "t.json")[0] == 2


@pytest.mark.parametrize(
    ("scores", "truth"),
    [
        (
            {
                "0123456789a": {"Wave hand": 0.9, "Walk": 0.8, "Sit down": 0.1},
                "v_b": {"Wave hand": 0, "Walk": 0, "Sit down": 1},
            },
            "t.json",
        ),
        ({"0123456789a": [0.9, 0.8, 0.1], "b": [0, 0.1, 1], "elsewhere": [0, 0, 1]}, "ids.json"),
        ({"0123456789a": {"0": 0.9, "1": 0.8, "2": 0.1}, "b": {"0": 0, "1": 0, "2": 1}}, "ids.json"),
    ],
)
def test_class_scores_under_other_ids(files, capsys, scores, truth):
    (files / "s.json").write_text(json.dumps(scores))
    path = write(files / "p.json", rows(label=lambda name, number: "proposal"))
    code, out, _ = evaluate(capsys, path, files / truth, "--class-scores", files / "s.json")
    assert (
        code == 0 and "avg mAP 83.33 %" in out
    )  # of Wave hand and Walk, one comes after the other's proposal


def test_a_taxonomy_adds_its_levels(files, capsys):
    taxonomy = files / "taxonomy.json"
    classes = {"Wave hand": ["Arm"], "Walk": ["Legs"], "Sit down": ["Legs"]}
    taxonomy.write_text(json.dumps({"levels": ["limb"], "classes": classes}))
    swapped = {"Walk": "Sit down", "Sit down": "Walk"}
    table = rows(label=lambda name, number: swapped.get(name, name))
    arguments = write(files / "d.json", table), files / "t.json", "--taxonomy", taxonomy
    code, out, _ = evaluate(capsys, *arguments)
    assert code == 0 and "level limb: avg mAP 100.00, mean precision by time 100.00" in out
    assert "level class: avg mAP 33.33, mean precision by time 33.33" in out
    taxonomy.write_text(json.dumps({"levels": ["limb"], "classes": {"Walk": ["Legs"]}}))
    code, _, err = evaluate(capsys, *arguments)
    assert code == 2 and str(taxonomy) in err and "no class" in err


def test_a_run_on_a_fold_is_scored_on_its_recordings(tmp_path, capsys):
    """A benchmark's name and fold give the test part; the official split has others, which is said."""
    benchmark = load_benchmark("synthetic", fold=1)
    truth = benchmark.annotations("test")
    table = truth.assign(score=1.0, fold=1)
    table.to_csv(tmp_path / "d.csv", index=False)
    code, out, err = evaluate(capsys, tmp_path / "d.csv", "synthetic", "--fold", "1")
    assert code == 0 and "avg mAP 100.00 %" in out and not err, (out, err)
    code, out, err = evaluate(capsys, tmp_path / "d.csv", "synthetic")
    official = set(load_benchmark("synthetic").recordings("test"))
    outside = int((~truth.recording.isin(official)).sum())
    assert outside and f"{outside:,} of {len(truth):,} detections are of recordings outside test" in err
    assert "annotated recordings have no detection" in err
    code, out, err = evaluate(capsys, tmp_path / "d.csv", tmp_path / "t.json", "--fold", "1")
    assert code == 2 and "a file has no folds" in err
    held_out = load_benchmark("synthetic_validation").annotations("test").assign(score=1.0)
    held_out.to_csv(tmp_path / "v.csv", index=False)
    code, out, err = evaluate(capsys, tmp_path / "v.csv", "synthetic_validation")
    assert code == 0 and "avg mAP 100.00 %" in out and not err, (out, err)
    for missing in ("none.json", "nonesuch", str(tmp_path / "none.json")):
        code, out, err = evaluate(capsys, tmp_path / "d.csv", missing)
        assert code == 2 and "annotation file not found" in err


def test_the_fold_of_a_published_run_is_that_of_only(capsys):
    try:
        load_benchmark("sfinge3d")
    except TalError:
        pytest.skip("sfinge3d is not on this machine")
    path = REPOSITORY / "results" / "detections" / "equal" / "sfinge3d.parquet"
    run = [part for name in ("model=tridet", "fraction=1.0", "fold=3") for part in ("--only", name)]
    code, out, err = evaluate(capsys, path, "sfinge3d", *run)
    folds = read_csv(REPOSITORY / "results" / "readers" / "accuracy" / "folds_sfinge3d.csv").set_index(
        "model"
    )
    assert code == 0 and not err
    assert float(out.split("avg mAP ")[1].split()[0]) == pytest.approx(folds["fold 3"]["tridet"], abs=0.3)
