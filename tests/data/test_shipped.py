import json

import pytest

from policy_accel.data import shipped, shipped_path
from policy_accel.errors import UserError


def test_finds_the_manifest():
    assert json.loads(shipped_path("manifest", "pusht.json").read_text())["name"] == "pusht"


def test_wheel_comes_before_the_repository(tmp_path, monkeypatch):
    wheel, repository = tmp_path / "package" / "datasets", tmp_path / "datasets"
    for root in (wheel, repository):
        root.mkdir(parents=True)
        (root / "both").touch()
    (repository / "one").touch()
    monkeypatch.setattr(shipped, "_ROOTS", (wheel, repository))
    assert shipped_path("both") == wheel / "both"
    assert shipped_path("one") == repository / "one"


def test_missing():
    with pytest.raises(UserError, match=r"datasets/no/such is missing from this installation \(looked in .*install"):
        shipped_path("no", "such")
