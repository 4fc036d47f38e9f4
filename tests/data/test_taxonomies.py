"""Class taxonomies that benchmarks bring."""

import json

from tal_lib.data import load_benchmark
from tal_lib.data.registry import BENCHMARKS, _taxonomies
from tal_lib.evaluation import read_taxonomy


def test_the_levels_of_50_salads(tmp_path):
    """Counts of the data set's own conversion tables and of its high-level annotation."""
    shipped = [path for path in _taxonomies("50salads", tmp_path) if path.is_file()]
    taxonomy = read_taxonomy(shipped[0], ["peel_cucumber"])
    assert taxonomy.levels == ("activity", "verb") and len(taxonomy.ancestors) == 17
    activities, verbs = taxonomy.at("activity"), taxonomy.at("verb")
    assert sorted(set(activities.values())) == ["cut_and_mix_ingredients", "prepare_dressing", "serve_salad"]
    assert sorted(set(verbs.values())) == ["add", "cut", "mix", "peel", "place", "serve"]
    assert activities["add_dressing"] == "serve_salad" and verbs["place_tomato_into_bowl"] == "place"


def test_a_folder_brings_its_own(tmp_path):
    annotations = {
        "v": {"subset": "training", "duration": 9.0, "annotations": [{"segment": [1, 2], "label": "a"}]}
    }
    (tmp_path / "annotations.json").write_text(json.dumps({"database": annotations}))
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "spec.json").write_text('{"streams": {"x": 2}, "stride_s": 1.0}')
    assert load_benchmark(str(tmp_path)).taxonomy is None
    (tmp_path / "taxonomy.json").write_text(json.dumps({"levels": ["all"], "classes": {"a": ["letter"]}}))
    data = load_benchmark(str(tmp_path))
    assert read_taxonomy(data.taxonomy, data.classes).at("all") == {"a": "letter"}
    assert load_benchmark("synthetic").taxonomy is None and "synthetic" in BENCHMARKS
