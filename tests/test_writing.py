"""`tal_lib.writing` alone: which files belong to the program, and what remains when a writer fails."""

import errno
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tal_lib import TalError
from tal_lib.disk import disk_errors, writable_folder
from tal_lib.files import REPOSITORY, atomic_path, write_text, write_torch
from tal_lib.writing import (
    HEADER,
    LIST,
    claim,
    is_ours,
    listed,
    overwriting,
    same_file,
    staged,
)

USUAL = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60)


@pytest.fixture
def foreign(tmp_path):
    """A file of somebody else."""
    path = tmp_path / "theirs.txt"
    path.write_text("precious")
    return path


@given(names=st.lists(USUAL.filter(lambda name: name not in (".", "..", LIST)), max_size=5), data=st.data())
def test_a_sequence_of_writers_never_loses_what_a_user_wrote(tmp_path_factory, names, data):
    """Program and user write in any order: what the user wrote last is there until the user writes again."""
    folder, users = tmp_path_factory.mktemp("any"), {}
    for _ in range(8 if names else 0):
        name = data.draw(st.sampled_from(names))
        text = data.draw(st.sampled_from(["a", "b", "cc"]))
        if data.draw(st.booleans()):
            (folder / name).write_text(text)
            users[name] = text if not is_ours(folder / name) else None
        else:
            try:
                write_text(folder / name, text)
                assert users.get(name) in (None, text)
            except TalError:
                assert users[name] not in (None, text)
        for name, text in users.items():
            assert text is None or (folder / name).read_text() == text


def test_a_file_is_ours_until_somebody_changes_it(tmp_path):
    path = tmp_path / "table.csv"
    for text in ("1", "2", "1"):
        write_text(path, text)
        assert is_ours(path) and listed(path)
    path.write_text("3")  # of the same size: only its contents tell
    assert not is_ours(path) and listed(path)
    with pytest.raises(TalError, match="was changed since it was written"):
        write_text(path, "4")
    assert path.read_text() == "3"
    path.write_text("2")  # what the program once wrote can be written again
    write_text(path, "4")


def test_a_file_of_somebody_else_is_not_replaced(foreign):
    with pytest.raises(
        TalError,
        match=r"theirs.txt: was not written by this program\. Name another folder, or use --overwrite",
    ):
        write_text(foreign, "new")
    write_text(foreign, "precious")  # the same is no loss, and does not make it the program's own
    with pytest.raises(TalError):
        write_text(foreign, "new")
    assert foreign.read_text() == "precious" and [path.name for path in foreign.parent.iterdir()] == [
        "theirs.txt"
    ]
    with overwriting():
        write_text(foreign, "new")
    assert foreign.read_text() == "new"


def test_links_and_folders_are_not_replaced(foreign):
    folder = foreign.parent
    (folder / "link").symlink_to(foreign)
    (folder / "dangling").symlink_to(folder / "nowhere")
    (folder / "folder").mkdir()
    for name in ("link", "dangling", "folder"):
        with pytest.raises(TalError, match=name):
            write_text(folder / name, "new")
    with overwriting(), pytest.raises(TalError, match="is a folder where a file is to be written"):
        write_text(folder / "folder", "new")
    with overwriting():
        write_text(folder / "link", "new")
    assert foreign.read_text() == "precious" and (folder / "dangling").is_symlink()


def test_names_that_lead_outside_are_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "away").symlink_to(tmp_path)
    for name in ("../x", "away/x", "/x", "a/../../x"):
        with pytest.raises(TalError, match="points outside"):
            claim(tmp_path / "out", [name])
    claim(tmp_path / "out", ["x", "a/../x"])


def test_one_file_by_two_names(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert same_file(
        tmp_path / "a" / "x", tmp_path / "b" / ".." / "a" / "x"
    )  # of a file that is not there yet
    assert not same_file(tmp_path / "a" / "x", tmp_path / "a" / "y")


def test_a_killed_writer_leaves_a_file_that_is_listed(tmp_path):
    """Killed after the rename, or before it: what lies there is the program's own either way."""
    for moment in ("os.replace", "os.fsync"):
        path = tmp_path / "state"
        code = (
            "import os, sys; from tal_lib.files import write_text\n"
            f"write_text(sys.argv[1], 'first'); do = {moment}\n"
            "def die(*a): do(*a); os.kill(os.getpid(), 9)\n"
            f"{moment} = die\nwrite_text(sys.argv[1], 'second')"
        )
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        assert subprocess.run([sys.executable, "-c", code, str(path)], env=environment).returncode == -9
        assert is_ours(path) and path.read_text() in ("first", "second")
        write_text(path, "first")


@pytest.mark.parametrize("cut", [0, 1, 20, 90])
def test_a_list_cut_by_a_full_disk_is_read_as_far_as_it_goes(tmp_path, cut):
    for name in ("a", "b"):
        write_text(tmp_path / name, name)
    known = tmp_path / LIST
    known.write_bytes(known.read_bytes()[: len(known.read_bytes()) - cut])
    write_text(tmp_path / "c", "c")
    assert is_ours(tmp_path / "a") and is_ours(tmp_path / "c") and is_ours(tmp_path / "b") == (cut < 2)


@pytest.mark.parametrize("content", [b"notes", b'{"other": 1}\n', b"\xff\0"])
def test_a_list_of_somebody_else_is_not_added_to(tmp_path, content):
    (tmp_path / LIST).write_bytes(content)
    for write in (lambda: claim(tmp_path), lambda: write_text(tmp_path / "a", "a")):
        with pytest.raises(TalError, match="was not written by this program, judging by its contents"):
            write()
    assert (tmp_path / LIST).read_bytes() == content and not (tmp_path / "a").exists()


def test_many_processes_list_their_files_in_one_folder(tmp_path):
    code = (
        "import sys; from tal_lib.files import write_text\n"
        "for i in range(40): write_text(f'{sys.argv[1]}/{sys.argv[2]}-{i}', str(i))"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(number)], env=environment)
        for number in range(3)
    ]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    assert sum(is_ours(path) for path in tmp_path.glob("[!.]*")) == 120
    lines = (tmp_path / LIST).read_text().splitlines()
    assert set(lines) >= {HEADER.strip()} and all(json.loads(line) for line in lines)


def test_committed_files_of_this_project_may_be_replaced_while_git_has_them():
    """`tal report` in a fresh clone: its tables are in git, no list is."""
    assert is_ours(REPOSITORY / "CITATION.cff") != bool(_changed("CITATION.cff"))
    assert not is_ours(REPOSITORY / ".git")


def _changed(name):
    command = ["git", "-C", str(REPOSITORY), "status", "--porcelain", "--", name]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or done.returncode


def test_what_is_staged_comes_whole_or_not_at_all(tmp_path):
    (tmp_path / "site").mkdir()
    with pytest.raises(RuntimeError), staged(tmp_path / "site", "list.json", "an earlier one") as folder:
        (folder / "a").write_text("1")
        raise RuntimeError
    assert not list((tmp_path / "site").iterdir())
    for text, names in (("1", "ab"), ("2", "bc")):
        with staged(tmp_path / "site", "list.json", "an earlier one") as folder:
            for name in names:
                (folder / name).write_text(text)
    assert sorted(path.name for path in (tmp_path / "site").glob("[!.]*")) == ["b", "c", "list.json"]
    (tmp_path / "site" / "c").write_text("changed")
    with (
        pytest.raises(TalError, match="was changed since"),
        staged(tmp_path / "site", "list.json", "") as folder,
    ):
        for name in "bc":
            (folder / name).write_text("3")
    assert (tmp_path / "site" / "b").read_text() == "2"  # all are checked before the first is put in place


def test_the_programs_own_state_is_written_anew_whatever_it_holds(foreign):
    write_text(foreign, "new", state=True)
    assert foreign.read_text() == "new" and not (foreign.parent / LIST).exists()


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.ENAMETOOLONG]
)
def test_what_the_disk_refuses_is_one_line(tmp_path, code):
    with pytest.raises(TalError) as told, atomic_path(tmp_path / "x"):
        raise OSError(code, os.strerror(code))
    full = code in (errno.ENOSPC, errno.EDQUOT)
    assert ("the disk is full" if full else f"cannot be written ({os.strerror(code)})") in str(told.value)
    assert not list(tmp_path.iterdir())


def test_what_is_wrong_with_a_source_is_not_said_of_the_target(tmp_path):
    for error in (
        FileNotFoundError(errno.ENOENT, "x", "/no/such"),
        PermissionError(errno.EACCES, "x", "/etc/shadow"),
    ):
        with pytest.raises(type(error)), disk_errors(tmp_path / "x"):
            raise error
    with pytest.raises(KeyError), disk_errors(tmp_path / "x"):
        raise KeyError("a mistake in the code")


def test_a_null_character_and_a_file_in_a_folders_place(foreign):
    with pytest.raises(TalError, match="null character"):
        writable_folder(f"{foreign.parent}/a\0b")
    with pytest.raises(TalError, match="theirs.txt: is a file, not a folder"):
        write_text(foreign / "x" / "y", "")


def test_torch_files_on_a_full_disk(small_disk):
    """torch itself ends the process there."""
    import torch

    disk = small_disk("-o", "size=64k")
    with pytest.raises(TalError, match="the disk is full"):
        write_torch(disk / "large.pt", {"x": torch.zeros(100_000)})
    assert not list(disk.glob("*.pt")) and not list(disk.glob(".tal-*.pt"))
