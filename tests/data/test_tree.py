from __future__ import annotations

from pathlib import Path

from policy_accel.data.tree import folder_tree


def test_links_are_followed_once(tmp_path: Path) -> None:
    """A link that leads back to a folder above does not repeat what is there."""
    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "set" / "a" / "one.png").write_bytes(b"1")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "two.png").write_bytes(b"2")
    (tmp_path / "set" / "back").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "loop").symlink_to("loop")
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "other")
    tree = folder_tree(tmp_path / "set")
    assert tree.names == ["a/one.png", "linked/two.png", "loop"]
    assert tree.read("linked/two.png") == b"2"
