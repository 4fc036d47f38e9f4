"""Declared versions of code: every area has one, it is raised or stamped, and a stamp is earned by equal
numbers.
"""

import json

import pytest

from tal_lib import TalError, sweeps
from tal_lib.cli import main
from tal_lib.sweeps import declare
from tal_lib.sweeps.identity import Code
from tal_lib.sweeps.versions import Declared, Versions, read_versions

WORK = "notebooks/work"


def test_every_area_is_declared():
    states = declare.undeclared(declare.fresh_code())
    assert not states, (
        f"{', '.join(f'{area} ({state})' for area, state in sorted(states.items()))}: not the code that was "
        "declared. If cells give the same numbers, `tal versions stamp` runs a sample of them again and says "
        "so; if not, `tal versions raise AREA --why TEXT`."
    )


@pytest.fixture(scope="module")
def fingerprints():
    return declare.all_areas(declare.fresh_code())


@pytest.fixture(scope="module")
def areas():
    """The areas of today's files, which are parsed once for all tests."""
    return Code(versions=Versions()).areas


def todays(areas, versions):
    code = Code(versions=versions)
    code.areas = areas
    return code


@pytest.fixture
def code(fingerprints, areas):
    """Today's code, all of it declared."""
    return todays(areas, Versions({area: Declared(1, now) for area, now in fingerprints.items()}))


def test_the_command_lists_what_is_not_declared(code, capsys, monkeypatch):
    monkeypatch.setattr(declare, "fresh_code", lambda: code)
    assert main(["versions"]) == 0 and "0 not as declared" in capsys.readouterr().out
    code.versions.areas["segments"] = Declared(4, "0" * 16)
    code.versions.areas["models/of_old"] = Declared(1, "0" * 16)
    del code.versions.areas["models/tridet"]
    assert main(["versions"]) == 1
    out = capsys.readouterr().out
    assert "changed  segments (declared version 4)" in out and "gone     models/of_old" in out
    assert "new      models/tridet (declared version none)" in out


def test_the_file_is_read_as_it_was_written(tmp_path):
    versions = Versions(
        {"segments": Declared(2, "ab"), "notebooks/ü": Declared(1, "cd")},
        {"new": "old"},
        {"notebooks/01_data": {"fold": -1, "options": {"a": [1, 2.5, "x"]}, "on": True}},
        [{"area": "segments", "version": 2, "why": 'a "quoted" reason', "date": "2026-01-01"}],
        [{"areas": ["segments"], "cells": [], "verdict": "equal"}],
    )
    versions.write(tmp_path / "v.toml")
    assert read_versions(tmp_path / "v.toml") == versions


def test_what_a_person_adds_by_hand_stays(tmp_path):
    path = tmp_path / "v.toml"
    Versions({"segments": Declared(2, "ab")}).write(path)
    path.write_text(path.read_text("utf-8") + '[added."notebooks/01_data"]\nfold = -1\n', "utf-8")
    read_versions(path).write(path)
    assert read_versions(path).added == {"notebooks/01_data": {"fold": -1}}


@pytest.mark.parametrize(
    "text", ["[areas", "x = 1", '[areas]\n"a" = 3', '[areas]\n"a" = { version = "x" }', "\x00"]
)
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "v.toml").write_text(text)
    with pytest.raises(TalError, match="v.toml: not a file of versions.*Restore it"):
        read_versions(tmp_path / "v.toml")


@pytest.mark.parametrize(("fingerprint", "version"), [("aaaabbbbcccc", "3"), ("ddddeeeeffff", "3+ddddeeee")])
def test_other_code_has_another_effective_version(fingerprint, version):
    assert Versions({"a": Declared(3, "aaaabbbbcccc")}).effective("a", fingerprint) == version
    assert Versions().effective("a", fingerprint) == f"0+{fingerprint[:8]}"


@pytest.fixture
def declared(project, tmp_path, areas):
    """A project with results whose notebook is declared at version 1; `code()` is the code as it is now."""
    sweeps.run(project.make((3, 4)), **project.where)
    lines = [json.loads(line) | {"code": {}} for line in project.ledger.read_text().splitlines()]
    project.ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    project.notebooks, project.file = project.folder / "notebooks", tmp_path / "versions.toml"
    first = todays(areas, Versions()).fingerprint(WORK, project.notebooks)
    project.versions = Versions({WORK: Declared(1, first)})
    project.code = lambda: todays(areas, project.versions)
    project.stamp = lambda **more: declare.stamp_versions(
        [WORK],
        project.code(),
        project.where["results"],
        notebooks=project.notebooks,
        path=project.file,
        **more,
    )
    return project


def test_a_stamp_is_earned_by_equal_numbers(declared):
    declared.make((3, 4), sleep=0.001)  # other code, the same numbers
    assert declare.undeclared(declared.code(), declared.notebooks)[WORK] == "changed"
    verdicts = []
    versions = declared.stamp(sample=2, tell=verdicts.append)
    assert [verdict.verdict for verdict in verdicts] == ["equal"] * 2
    assert WORK not in declare.undeclared(declared.code(), declared.notebooks)
    (stamped,) = read_versions(declared.file).stamped
    assert versions.areas[WORK].version == 1 and len(stamped["cells"]) == 2 and stamped["verdict"] == "equal"


def test_other_numbers_are_not_stamped_but_raised(declared):
    notebook = declared.notebooks / "work.ipynb"
    notebook.write_text(notebook.read_text().replace("number ** 2", "number ** 3"))
    with pytest.raises(TalError, match="has other numbers .differs.*Declare the change"):
        declared.stamp()
    assert not declared.file.exists() and declared.versions.areas[WORK].version == 1
    declare.raise_versions([WORK], "cubes", declared.code(), declared.notebooks, declared.file)
    written = read_versions(declared.file)
    assert written.areas[WORK].version == 2 and written.raised[0]["why"] == "cubes"
    assert declared.code().of(notebook, {"number": 3}) | {"sweeps/recording": ""} == {
        WORK: "2",
        "sweeps/recording": "",
    }


def test_numbers_of_another_machine_earn_no_stamp(declared):
    text = declared.ledger.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        line["provenance"]["device_name"] = "another"
    declared.ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(TalError, match="notebooks/work: no cell of this kind of machine depends on it"):
        declared.stamp()


def test_areas_are_named_alone_or_by_folder(code):
    code.versions.areas["evaluation/proposals"] = Declared(1, "x")
    code.versions.areas["evaluation/diagnosis"] = Declared(1, "x")
    changed = ["evaluation/diagnosis", "evaluation/proposals"]
    assert declare.chosen_areas(["evaluation"], code) == declare.chosen_areas([], code) == changed
    assert declare.chosen_areas(["segments"], code) == ["segments"]
    for name in ("models", "evaluation/none"):
        with pytest.raises(TalError, match=f"no area '{name}' with changed code"):
            declare.chosen_areas([name], code)


def test_a_moved_area_is_known_by_its_first_name(code, tmp_path):
    code.versions.areas["models/once"] = code.versions.areas.pop("models/tridet")
    versions = declare.move_area("models/once", "models/tridet", code, path=tmp_path / "v.toml")
    assert versions.moved == {"models/tridet": "models/once"} and "models/once" not in versions.areas
    with pytest.raises(TalError, match="cannot declare that .* was moved"):
        declare.move_area("models/tridet", "models/afsd", code, path=tmp_path / "v.toml")
    code.versions.areas["models/gone"] = code.versions.areas["models/gaf"]
    with pytest.raises(TalError, match="an area that is not declared yet"):
        declare.move_area("models/gone", "models/afsd", code, path=tmp_path / "v.toml")  # would lose afsd's
    with pytest.raises(TalError, match="the file of models/of_old no longer exists"):
        declare.raise_versions(["models/of_old"], "why", code, path=tmp_path / "v.toml")
