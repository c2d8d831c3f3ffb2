"""The manifests of data sets, and where those that ship are found."""

import hashlib
import json
import re

import numpy as np
import pytest

from policy_accel.data import shipped_path
from policy_accel.errors import UserError


def test_every_manifest_states_what_it_must():
    for path in shipped_path("manifest").glob("*.json"):
        manifest = json.loads(path.read_text())
        assert manifest["name"] == path.stem
        assert all(manifest[key] for key in ("title", "licence", "citation"))
        for file in manifest.get("files", [] if "how_to_get" in manifest else [manifest]):
            assert file["address"].startswith("https://")
            assert file["sha256"] is None or re.fullmatch("[0-9a-f]{64}", file["sha256"])
            assert file["sha256"] or file["contents"]


def test_mnist_manifest_agrees_with_the_real_data(shared_data):
    """Three files are the publisher's own bytes; the training images there are compressed anew."""
    manifest = json.loads(shipped_path("manifest", "mnist.json").read_text())
    assert [file["file"] for file in manifest["files"]] == [
        f"{part}-{what}-ubyte.gz" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")
    ]
    for file in manifest["files"][1:]:
        content = (shared_data / "mnist" / file["file"]).read_bytes()
        assert len(content) == file["bytes"]
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        assert hashlib.md5(content).hexdigest() == file["md5"]
        assert file["address"].endswith(f"/mnist/{file['file']}")


def test_wheel_comes_before_the_repository(tmp_path, monkeypatch):
    wheel, repository = tmp_path / "package" / "datasets", tmp_path / "datasets"
    for root in (wheel, repository):
        root.mkdir(parents=True)
        (root / "both").touch()
    (repository / "one").touch()
    monkeypatch.setattr("policy_accel.data.download._ROOTS", (wheel, repository))
    assert shipped_path("both") == wheel / "both"
    assert shipped_path("one") == repository / "one"


def test_nothing_shipped_there():
    with pytest.raises(UserError, match=r"datasets/no/such is missing from this installation \(looked in .*install"):
        shipped_path("no", "such")


def test_pusht_manifest_agrees_with_the_real_data(shared_data):
    manifest = json.loads(shipped_path("manifest", "pusht.json").read_text())
    assert manifest["address"] == "https://diffusion-policy.cs.columbia.edu/data/training/pusht.zip"
    lowdim = np.load(shared_data / "pusht_lowdim.npz")
    assert manifest["contents"] == {
        name: hashlib.sha256(lowdim[name.split("/")[1]].tobytes()).hexdigest()
        for name in ("data/state", "data/action", "data/keypoint", "meta/episode_ends")
    }
