"""The tutorials, as a reader follows them: every Python block and every command, in order."""

import re
import shlex
import shutil
import sys
from functools import partial

import pytest

from tal_lib import models, plugins
from tal_lib.cli import main
from tal_lib.cost import profile
from tal_lib.files import REPOSITORY
from tal_lib.models.parts import registry

TUTORIALS = REPOSITORY / "docs" / "tutorials"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
ORDER = (
    ("own-features", "new-model"),
    ("own-videos",),
    ("read-results",),
)  # with their data


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    """A plug-in of a tutorial is forgotten afterwards."""
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.setattr(plugins, "_seen", set())
    models.names()
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))


@pytest.mark.parametrize("names", ORDER, ids=lambda names: "+".join(names))
def test_a_tutorial_works_as_it_stands(names, tmp_path, monkeypatch, in_this_process, capsys):
    for name in ("examples", "results"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    monkeypatch.chdir(tmp_path)
    # on a busy machine `tal cost` samples for up to twelve seconds, until its rounds agree
    monkeypatch.setattr("tal_lib.cost.profile", partial(profile, min_seconds=0.02))
    in_this_process(sys.modules[profile.__module__])
    space, steps = {}, 0
    for name in names:
        for language, text in BLOCK.findall((TUTORIALS / f"{name}.md").read_text(encoding="utf-8")):
            _run(language, text, space)
            steps += 1
    assert steps >= 3
    assert capsys.readouterr().out.strip(), "the commands print their results"


def _run(language, text, space):
    if language == "python":
        exec(compile(text, "tutorial", "exec"), space)
        return
    assert language == "sh"
    for line in text.splitlines():
        program, *arguments = shlex.split(line)
        if program == "cp":
            shutil.copyfile(*arguments)
        else:
            assert program == "tal" and main(arguments) == 0, line


def test_every_tutorial_is_run_and_in_the_site():
    from tal_lib.reports.site.sources import TUTORIALS as shown

    written = {path.stem for path in TUTORIALS.glob("*.md")}
    assert written == set(shown) == {name for names in ORDER for name in names}
