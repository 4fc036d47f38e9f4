"""`tal models`, `tal cite`, the lists in `--help`, and where a notebook finds the results."""

import importlib
import re
import shutil
import subprocess

import nbformat
import pandas as pd
import pytest
import yaml

from tal_lib import TalError, __version__
from tal_lib.cli import main
from tal_lib.cli.options import known_names
from tal_lib.data.registry import BENCHMARKS
from tal_lib.files import REPOSITORY
from tal_lib.models.parts import registry
from tal_lib.reports import cards, citation
from tal_lib.reports.layout import Layout, nearest
from tal_lib.reports.options import described, options_of
from tal_lib.reports.papers import DATA_PAPERS, PAPERS, paper_of

OURS = {"local_global", "text_pyramid", "timeline_prior", "window_cnn"}  # their docstrings say so
MODELS = sorted(PAPERS.keys() | OURS)


def words(text):
    return " ".join(re.sub(r"[^\w]+", " ", text).lower().split())


def test_every_model_has_a_paper_or_is_of_this_study():
    shipped = {name for name in registry.every_name() if registry.origin(name).startswith("tal_lib.")}
    assert shipped == set(MODELS) and not OURS & PAPERS.keys()


@pytest.mark.parametrize("name", PAPERS)
def test_papers_are_those_of_the_docstrings(name):
    doc, paper = words(importlib.import_module(f"tal_lib.models.{name}").__doc__), PAPERS[name]
    assert words(paper.title) in doc and words(paper.first_author) in doc
    if paper.venue != "arXiv":  # a preprint's year is not in every docstring
        assert words(f"{paper.venue} {paper.year}") in doc
    assert re.fullmatch(r"https://(arxiv\.org/abs/\d{4}\.\d{5}|doi\.org/10\.\S+)", paper.link)
    assert re.match(r"@(inproceedings|article|misc)\{\w[\w-]*,\n", paper.bibtex())


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_every_benchmark_of_others_has_a_paper(name):
    paper = paper_of(name)
    if (paper is None) or BENCHMARKS[name].origin == "made from a seed":
        assert paper is None and name.startswith(("synthetic", "rendered"))
        return
    assert re.fullmatch(r"https://(arxiv\.org/abs/\d{4}\.\d{5}|doi\.org/10\.\S+)", paper.link)
    assert (
        cards.citations_of([name])[1:] == [paper.bibtex()] and "{" + paper.venue.split()[0] in paper.bibtex()
    )


@pytest.mark.parametrize("name", ["hapt", "sfinge3d", "urfall"])
def test_papers_of_data_are_those_of_the_docstrings(name):
    doc, paper = words(importlib.import_module(f"tal_lib.data.{name}").__doc__), DATA_PAPERS[name]
    assert words(paper.title) in doc and words(paper.venue) in doc and str(paper.year) in doc


def test_cards_say_where_trained_weights_are():
    card = cards.model_card("tridet", Layout())
    assert "`tal detect FILE --model hapt/tridet`" in card and "Others are random until" in card
    assert "- Weights are random until `tal train`." in cards.model_card("text_pyramid", Layout())


def test_a_card_of_unused_data_promises_no_result_and_shows_no_module_of_many_sets():
    card = cards.data_card("thumos14", Layout())
    assert card.endswith("This study has no result on it.") and "<data root>" not in card
    card = cards.data_card("hapt", Layout())
    assert "Results hold for these recordings" in card and "30 people, 12 activities and" in card
    floors = pd.read_csv(Layout().table("equal_values")).query(
        "benchmark == 'hapt' and model == 'timeline_prior'"
    )
    assert f"{floors['mean'].iloc[-1]:.1f} as the mean over 5 folds" in card


def test_several_citations_hold_each_entry_once(capsys):
    assert main(["cite", "hapt", "hapt_recomposed", "actionformer", "window_cnn", "--bib"]) == 0
    out, notes = capsys.readouterr()
    assert notes.splitlines() == [
        "note: doi and url of this study are placeholders until its first public release",
        "note: window_cnn has no paper: cite this study",
    ]
    assert "doi = {10.1016/" in DATA_PAPERS["sfinge3d"].bibtex()
    keys = re.findall(r"(?m)^@\w+\{([\w-]+),$", out)
    assert keys == ["efficient_tal", "reyes-ortiz2016transition-aware", "zhang2022actionformer"]
    assert "#" not in out and r"Alb" in out
    both = printed(capsys, "cite", "hapt", "actionformer")
    assert both.index("# hapt\n") > both.index("@inproceedings{zhang2022") and "# actionformer\n" in both
    assert "author = {Fabian {Caba Heilbron} and" in DATA_PAPERS["activitynet"].bibtex()


def test_data_made_from_other_data_has_its_paper():
    names = ["hapt_validation", "hapt_recomposed_6", "50salads_i3d", "thumos14_prior", "epic_kitchens_verb"]
    keys = ["hapt", "hapt", "50salads", "thumos14", "epic_kitchens"]
    assert [paper_of(name) for name in names] == [DATA_PAPERS[key] for key in keys]
    assert paper_of("multithumos") is DATA_PAPERS["multithumos"] and paper_of("haptic") is None


@pytest.mark.parametrize("name", MODELS)
def test_every_option_has_a_meaning(name):
    options = options_of(name)
    assert not [option.name for option in options if not option.meaning]
    assert {option.group for option in options} == {"model", "post-processing", "training"}


def test_meanings_are_the_comments_beside_the_fields():
    options = {option.name: option for option in options_of("tadtr")}
    assert options["first_reference"].meaning.startswith("the first decoder layer refers to")
    assert options["first_reference"].choices == ("centre", "segment")
    assert options["queries"].default == registry.config("tadtr").queries
    assert options["queries"].values["paper"] == registry.config("tadtr", "paper").queries
    saliency = {option.name: option.meaning for option in options_of("afsd")}
    assert saliency["clip_steps"] == "steps of a clip; 0: the whole recording"  # inherited
    assert described(type("Local", (), {})) == {}


def printed(capsys, *arguments):
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def test_the_table_of_models(capsys):
    out = printed(capsys, "models")
    cost = cards.tables.read_csv(Layout().table("inference_cost"))
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert rows.keys() >= {"model", *MODELS}
    assert "CVPR 2023" in " ".join(rows["tridet"].split()) and "this study" in rows["local_global"]
    for row in cost[(cost.benchmark == "hapt") & (cost.length_steps == 720)].itertuples():
        assert f"{row.params / 1e6:.2f}" in rows[row.model] and f"{row.macs / 1e9:.2f}" in rows[row.model]


def test_sizes_are_left_out_where_no_table_is(tmp_path):
    table = cards.model_table(Layout(tmp_path)).set_index("model")
    assert set(table.GMACs) == {"–"} and table.paper["tridet"] == "Shi et al."
    assert "Size" not in cards.model_card("tridet", Layout(tmp_path))


def test_one_model(capsys):
    out = " ".join(printed(capsys, "models", "tridet").split())
    assert PAPERS["tridet"].link in out and "compact: the default" in out and " paper: " in out
    assert "bins=" in out and "relative positions on either side" in out and "One of soft, hard, none." in out
    assert "learning_rate=" in out
    assert "no paper; from this study" in printed(capsys, "models", "local_global")


def test_cards(capsys):
    card = printed(capsys, "models", "bmn", "--card")
    cited = printed(capsys, "cite", "bmn")
    assert cited.startswith(citation.bibtex()) and cited.index("@inproceedings{lin2019bmn") < cited.index(
        "# bmn"
    )
    assert cited.count("@inproceedings") == 1 and card.partition("\n\n## Citation")[0] in cited
    for part in (
        "## Intended use",
        "## Training data",
        "## Limits",
        "only proposes",
        "@inproceedings{lin2019bmn",
    ):
        assert part in card
    data = printed(capsys, "cite", "hapt")
    assert data.startswith(f"{citation.bibtex()}\n\n{DATA_PAPERS['hapt'].bibtex()}\n\n# hapt\n")
    for part in (
        "61 recordings, 12 classes, 1,214 annotated",
        "30 people",
        "CC BY 4.0",
        "Reyes-Ortiz",
        "## Limits",
    ):
        assert part in data


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_a_card(name):
    card = cards.data_card(name, Layout())
    assert card.startswith(f"# {name}\n\n") and BENCHMARKS[name].licence in card and "None" not in card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "tridetx"], "tridet"),
        (["models", "--card"], "Name one"),
        (["cite", "nonesuch"], "model or benchmark"),
    ],
)
def test_unknown_names_are_refused(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "kinds"),
    [
        (["train"], ("models", "presets", "benchmarks")),
        (["cost"], ("models", "presets")),
        (["models"], ("models",)),
        (["eval"], ("benchmarks",)),
        (["released"], ("presets", "benchmarks")),
        (["cite"], ("models", "benchmarks")),
        (["export"], ("models", "trained models")),
        (["detect"], ("trained models",)),
        (["serve"], ("trained models",)),
        (["collect"], ("grids",)),
        (["sweep"], ("grids", "models", "presets", "benchmarks")),
        (["publish"], ("trained models",)),
        (["data", "fetch"], ("benchmarks",)),
        (["data", "check"], ("benchmarks",)),
        (["data", "subset"], ("benchmarks",)),
    ],
)
def test_help_lists_names(command, kinds, capsys):
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    out = capsys.readouterr().out
    for kind in kinds:
        listed = re.search(rf"(?m)^{kind}: (.*(?:\n  .*)*)", out)[1]
        assert re.split(r",\s+", listed) == known_names()[kind] != []


def test_help_lists_no_trained_models_where_there_are_none(monkeypatch, capsys):
    monkeypatch.setattr("tal_lib.reports.layout.trained_models", list)
    with pytest.raises(SystemExit):
        main(["detect", "--help"])
    assert "trained models:" not in capsys.readouterr().out


# CITATION.cff


def fields_of(bibtex):
    return dict(re.findall(r"(?m)^(\w+) = \{(.*)\},?$", bibtex))


def test_the_citation_is_the_file_as_bibtex(capsys):
    content = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    preferred = content["preferred-citation"]
    assert content["cff-version"] == "1.2.0" and content["message"]
    assert preferred["version"] == content["version"] == __version__
    assert str(preferred["year"]) + f"-{preferred['month']:02d}" == content["date-released"][:7]
    assert preferred["url"] == content["repository-code"]
    assert all(preferred[name] == content[name] for name in ("title", "doi", "authors", "type"))
    out = printed(capsys, "cite")
    assert out.startswith("@misc{efficient_tal,\n")
    assert fields_of(out) == {  # the fields that cffconvert 2.0.0 writes
        "author": " and ".join(f"{{{author['name']}}}" for author in content["authors"]),
        "doi": content["doi"],
        "month": str(preferred["month"]),
        "title": content["title"],
        "url": content["repository-code"],
        "year": str(preferred["year"]),
    }


def test_cffconvert_agrees():
    if not shutil.which("cffconvert"):
        pytest.skip("cffconvert is not installed; it needs an older jsonschema than Jupyter")
    command = ["cffconvert", "-i", str(REPOSITORY / "CITATION.cff")]
    subprocess.run([*command, "--validate"], check=True, capture_output=True)
    out = subprocess.run([*command, "-f", "bibtex"], check=True, capture_output=True, text=True).stdout
    ours = fields_of(citation.bibtex())
    assert fields_of(out) == ours | {
        "author": ours["author"].strip("{}")
    }  # it does not protect a group's name


def test_bibtex_in_the_readme_is_the_citation():
    readme = (REPOSITORY / "README.md").read_text()
    for block in re.findall(r"```bibtex\n(.*?)\n```", readme, re.S):
        assert block == citation.bibtex()


@pytest.mark.parametrize(
    "text", ["", "a: 1", "preferred-citation: {title: x, year: 2026}", "preferred-citation: [x]"]
)
def test_a_damaged_citation_is_refused(tmp_path, text):
    (tmp_path / "c.cff").write_text(text)
    with pytest.raises(TalError, match="no preferred-citation with title, authors, year.*Restore"):
        citation.bibtex(tmp_path / "c.cff")


def test_names_and_signs_in_bibtex(tmp_path):
    (tmp_path / "c.cff").write_text(
        "preferred-citation: {title: A & B, year: 1, authors: [{family-names: Müller, given-names: Ä.},"
        " {name: C_D}], url: 'https://x.y/a_b'}",
        encoding="utf-8",
    )
    assert fields_of(citation.bibtex(tmp_path / "c.cff")) == {
        "author": r"\"{A}. M\"{u}ller and {C\_D}",
        "title": r"A \& B",
        "url": "https://x.y/a_b",
        "year": "1",
    }


# notebooks


def test_results_are_found_in_folders_above(tmp_path, monkeypatch):
    (tmp_path / "results" / "tables").mkdir(parents=True)
    (tmp_path / "notebooks" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks" / "deep")
    assert nearest().results.resolve() == (tmp_path / "results").resolve()
    (tmp_path / "notebooks" / "results").mkdir()  # without tables
    assert nearest().results.resolve() == (tmp_path / "results").resolve()
    assert nearest(tmp_path / "x").results == tmp_path / "x"
    assert str(nearest("nowhere").results) == "nowhere"


def test_the_findings_say_which_tables_are_missing(tmp_path, monkeypatch):
    notebook = nbformat.read(REPOSITORY / "notebooks" / "00_findings.ipynb", as_version=4)
    setup = next(cell.source for cell in notebook.cells if "nearest(results)" in cell.source)
    shown_texts, names = [], {"results": str(tmp_path)}
    monkeypatch.setattr("IPython.display.display", lambda shown: shown_texts.append(shown.data))
    exec(setup, names)
    folder, *others = shown_texts
    assert "There is no folder" in folder and "check `results`" in folder
    assert [re.search(r"`(\w+)\.csv`", text)[1] for text in others] == [
        "data_efficiency",
        "inference_cost",
    ]
    names["measured"]("inference_cost"), names["measured"]("comparison_hapt")
    assert len(shown_texts) == 3  # once each; a table of one benchmark need not be there
