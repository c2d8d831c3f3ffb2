"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from policy_accel.errors import UserError
from policy_accel.files import (
    append_text,
    check_file,
    check_new,
    check_writable,
    new_path,
    no_link,
    open_regular,
    replace_json,
    replace_text,
    replacing,
    temporary_sibling,
)


def test_a_file_is_replaced_when_the_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for text in ("first", "second"):
        with replacing(path) as temporary:
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == text
    assert os.listdir(path.parent) == ["file"]


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(target: Path, *, folder: bool) -> None:
        with replacing(target) as temporary:
            if folder:
                (temporary / "inner").mkdir(parents=True)
            else:
                temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail(path, folder=False)
    with pytest.raises(RuntimeError):
        fail(tmp_path / "folder", folder=True)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_new_folder_is_never_put_over_anything(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with new_path(path) as temporary:
        temporary.mkdir()
        (temporary / "part").write_text("1")
    assert (path / "part").read_text() == "1"
    with pytest.raises(UserError, match="folder: exists already and is not overwritten"), new_path(path):
        raise AssertionError("the block must not run")
    # Something that appears while the block runs is left alone too.

    def race(target: Path) -> None:
        with new_path(target) as temporary:
            temporary.write_text("mine")
            target.write_text("theirs")

    with pytest.raises(UserError, match="other: exists already"):
        race(tmp_path / "other")
    assert (tmp_path / "other").read_text() == "theirs"
    assert not temporary_sibling(tmp_path / "other").exists()


def test_an_error_of_the_system_is_one_sentence_about_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"report\.json: cannot write it, a file stands where a folder is needed"):
        replace_json(tmp_path / "file" / "report.json", {})


def test_json_is_indented_and_ends_its_line(tmp_path: Path) -> None:
    replace_json(tmp_path / "a.json", {"b": [1]})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"b": [1]}
    assert text == '{\n  "b": [\n    1\n  ]\n}\n'


def test_text_is_appended(tmp_path: Path) -> None:
    append_text(tmp_path / "log", "one\n")
    append_text(tmp_path / "log", "two\n")
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


@pytest.mark.parametrize("dangling", [False, True])
def test_a_symbolic_link_is_neither_appended_to_nor_followed(tmp_path: Path, treasure: Path, dangling: bool) -> None:
    target = tmp_path / "nothing" if dangling else treasure
    (tmp_path / "log").symlink_to(target)
    with pytest.raises(UserError, match=r"log: is a symbolic link, which is not followed; remove it"):
        append_text(tmp_path / "log", "one\n")
    with pytest.raises(OSError, match="symbolic"), open(tmp_path / "log", "w", opener=no_link):
        pass
    assert treasure.read_text() == "mine\n"
    assert not (tmp_path / "nothing").exists()


def test_a_link_is_replaced_and_its_target_stays(tmp_path: Path, treasure: Path) -> None:
    (tmp_path / "log").symlink_to(treasure)
    replace_text(tmp_path / "log", "new\n")
    assert (tmp_path / "log").read_text() == "new\n"
    assert not (tmp_path / "log").is_symlink()
    assert treasure.read_text() == "mine\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "treasure"]


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "sentence"),
    [(errno.ENOSPC, "the disk is full, cannot write it"), (errno.EROFS, "no permission to write it")],
)
def test_a_full_or_read_only_disk_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, sentence: str
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(UserError, match=rf"{tmp_path.name}: {sentence}"):
            check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_is_needed_is_named(treasure: Path) -> None:
    with pytest.raises(UserError, match="treasure: cannot write it, a file stands where a folder is needed"):
        check_writable(treasure)
    assert treasure.read_text() == "mine\n"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"pipe: is no regular file but a pipe, a socket or a device"):
        open_regular(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"x")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"x"


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    """Nor is /dev/null, which is no more a file."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for write in (check_file, partial(replace_json, value={})):
        with pytest.raises(UserError, match=r"pipe: is a device or a pipe, which is not replaced; give the path"):
            write(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"link: is a symbolic link, which is not followed"):
        check_file(tmp_path / "link")
    with pytest.raises(UserError, match=r"link: is a device or a pipe"):
        replace_json(tmp_path / "link", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = [tmp_path / f".new.{ended.pid}.partial", tmp_path / f".new.zarr.{ended.pid}.partial"]
    for folder in left:
        folder.mkdir()
    (left[0] / "half").touch()
    (tmp_path / f".new.{os.getppid()}.partial").touch()  # of a process that lives
    with new_path(tmp_path / "new") as temporary:
        temporary.touch()
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == sorted([f".new.{os.getppid()}.partial", left[1].name, "new"])


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("file", "exists already and is not overwritten"),
        ("file/new", "a file stands where a folder is needed"),
        ("file/a/new", "a file stands where a folder is needed"),
        ("sealed/a/new", "no permission to write it"),
    ],
)
def test_what_cannot_be_made_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, sentence: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "sealed").mkdir()
    monkeypatch.setattr("os.access", lambda place, mode: place.name != "sealed")  # root may write everywhere
    check_new(tmp_path / "a" / "b" / "new")
    with pytest.raises(UserError, match=sentence):
        check_new(tmp_path / path)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["file", "sealed"]
