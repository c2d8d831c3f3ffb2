"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from policy_accel.errors import UserError
from policy_accel.files import new_path, replace_json, replacing, temporary_sibling


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
