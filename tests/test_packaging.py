"""What is installed, with which versions, and what an installed wheel can do without the repository."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tal_lib import files, provenance
from tal_lib.files import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [Requirement(text) for texts in (PROJECT["dependencies"], *EXTRAS.values()) for text in texts]
DIRECT = [requirement for requirement in DIRECT if requirement.name != PROJECT["name"]]

spec = importlib.util.spec_from_file_location("lock", REPOSITORY / ".ci" / "lock.py")
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
PINS = dict(line.split("==") for line in lock.read_lock())


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_the_lock_holds_what_is_asked_for(requirement):
    name = canonicalize_name(requirement.name)
    if name == "atheris":
        pytest.skip("not locked: it has no wheel for every Python")
    assert requirement.specifier.contains(PINS[name], prereleases=True)


@pytest.mark.parametrize("text", PROJECT["dependencies"])
def test_the_library_asks_for_ranges(text):
    operators = {part.operator for part in Requirement(text).specifier}
    assert operators == {">=", "<"}, "the library must install beside other software"


def test_the_lock_is_exact_and_holds_on_every_machine():
    assert len(PINS) > 100 and list(PINS) == sorted(PINS)
    assert not [version for version in PINS.values() if not re.fullmatch(r"[\w.]+", version)]


def test_conda_gets_the_locked_versions():
    assert (REPOSITORY / "environment.yml").read_text() == lock.environment(lock.read_lock())
    pip = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"][-1]["pip"]
    assert pip == [*lock.read_lock(), "--editable ."]


def test_notebooks_alone_need_widgets():
    assert any(text.startswith("ipywidgets") for text in EXTRAS["notebooks"])
    assert not [text for text in PROJECT["dependencies"] if text.startswith(("ipywidgets", "jupyterlab"))]


INSTALLS = ("sudo apt-get ", "pipx install ")  # what the system of a workflow lacks


def test_every_make_target_is_explained_and_workflows_call_them():
    help_text = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True).stdout
    explained = set(re.findall(r"^make (\S+)\s+\S", help_text, re.M))
    makefile = (REPOSITORY / "Makefile").read_text()
    assert explained == set(re.search(r"^\.PHONY: (.*)", makefile, re.M)[1].split())
    for workflow in (REPOSITORY / ".github" / "workflows").glob("*.yml"):
        jobs = yaml.safe_load(workflow.read_text())["jobs"]
        commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
        commands = [command for command in commands if not command.startswith(INSTALLS)]
        assert commands and all(command.removeprefix("make ") in explained for command in commands)


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """As if the library ran from a wheel."""
    (tmp_path / "carried" / "notebooks").mkdir(parents=True)
    monkeypatch.setattr(files, "INSTALLED_STUDY", tmp_path / "carried")
    monkeypatch.delenv("TAL_DATA", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    return tmp_path


def test_folders_in_a_checkout():
    assert files.study_folder() == REPOSITORY / "notebooks" and files.work_folder() == REPOSITORY


def test_folders_of_an_installed_package(installed, monkeypatch):
    assert files.study_folder() == installed / "carried" / "notebooks"
    monkeypatch.chdir(installed)
    assert files.work_folder() == installed
    monkeypatch.setenv("HOME", str(installed / "home"))
    assert files.data_root() == installed / "home" / ".local" / "share" / "efficient-tal"
    monkeypatch.setenv("XDG_DATA_HOME", str(installed / "xdg"))
    assert files.data_root() == installed / "xdg" / "efficient-tal"
    monkeypatch.setenv("TAL_DATA", str(installed / "mine"))
    assert files.data_root() == installed / "mine"


def test_an_installed_package_names_no_commit(installed):
    """It may lie in an environment inside somebody else's repository, whose commit says nothing about it."""
    assert provenance.git_commit.__wrapped__() == ""


@pytest.mark.slow
def test_a_built_package_runs_the_study_from_an_empty_folder(tmp_path):
    library, empty = tmp_path / "library", tmp_path / "empty"
    empty.mkdir()
    build = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    subprocess.run(
        [*build, "build_py", "--build-lib", str(library)], cwd=REPOSITORY, check=True, capture_output=True
    )
    names = {path.name for path in (library / "tal_lib" / "carried" / "notebooks").glob("*.ipynb")}
    assert names == {path.name for path in (REPOSITORY / "notebooks").glob("*.ipynb")}
    shipped = ("py.typed", "video/templates/live.html", "reports/RESULTS.template.md", "carried/CITATION.cff")
    for needed in shipped:
        assert (library / "tal_lib" / needed).is_file(), needed
    code = (
        "from tal_lib import files, sweeps\n"
        "from tal_lib.reports import costs, efficiency\n"
        "assert costs.PRIOR.is_file() and efficiency.PRIOR.is_file()\n"
        "cells = sweeps.plan(files.study_folder() / 'sweeps' / 'quick.yaml')\n"
        "print(files.__file__, len(cells))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=empty,
        env=os.environ | {"PYTHONPATH": str(library)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    path, count = done.stdout.split()
    assert path == str(library / "tal_lib" / "files.py") and int(count) > 10
