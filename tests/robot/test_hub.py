from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import yaml

from policy_accel import Policy
from policy_accel.commands.output import keep_evaluation
from policy_accel.errors import UserError
from policy_accel.run_files import located, results_folder
from policy_accel.sharing.provenance import licence_of

SCORED: dict[str, Any] = {
    "task": "pusht_state",
    "step": 4,
    "average": "ema",
    "score": 0.5,
    "score_interval": [0.25, 0.75],
    "score_from": "max_reward",
    "confidence": 0.9,
    "success_rate": 0.25,
    "success_interval": [0.1, 0.4],
    "start_seed": 70,
    "episodes": [{}] * 12,
    "sampler": "ddim",
    "network_evaluations": 3,
}


@pytest.fixture
def scored(run_dir: Path, tmp_path: Path) -> Path:
    """A copy of the run that was scored."""
    copy = shutil.copytree(run_dir, tmp_path / "run", symlinks=True)
    keep_evaluation(copy, SCORED)
    keep_evaluation(copy, {**SCORED, "score": 0.1, "step": 3})
    keep_evaluation(copy, {**SCORED, "score": 0.2, "control": {"delay_ms": 100}})
    return copy


def head_of(card: str) -> dict[str, Any]:
    """What the hub reads of a card."""
    return dict(yaml.safe_load(card.split("---\n")[1]))


def test_a_saved_policy_acts_as_before(scored: Path, tmp_path: Path) -> None:
    policy, folder = Policy.load(scored, device="cpu", sampling_steps=2), tmp_path / "policy"
    policy.save_pretrained(folder)
    again = Policy.from_pretrained(folder, device="cpu")
    states = np.random.default_rng(0).normal(size=(12, 5))
    for state in states:
        np.testing.assert_array_equal(again.act(state), policy.act(state))
    assert again.run.sampler.network_evaluations() == 2
    assert located(folder) == (folder / "model.safetensors", "last")
    assert results_folder(folder / "model.safetensors") == folder
    assert json.loads((folder / "config.json").read_text())["library_name"] == "policy_accel"
    again.save_pretrained(tmp_path / "again", name="policy")
    assert (tmp_path / "again" / "README.md").read_text() == (folder / "README.md").read_text()


def test_the_card_says_what_is_known(scored: Path, tmp_path: Path) -> None:
    policy = Policy.load(scored, device="cpu")
    policy.save_pretrained(tmp_path / "policy", data_licence="CC0 | all")
    card = (tmp_path / "policy" / "README.md").read_text()
    for said in (
        "task `pusht_state`",
        "policy = Policy.from_pretrained('policy')",
        "`observation` is 5 numbers: an array, or a dictionary with state",
        "| Data | `walks.zarr.zip` |",
        r"| Licence of the data | CC0 \| all |",
        "ddpm with target sample",
        "4 updates, 32 evaluations of the network, forward and back",
        "| Score | 0.500 (90% interval 0.250 to 0.750), by max",
        "| Success | 0.250 (90% interval 0.100 to 0.400) |",
        "| Episodes | 12, from seed 70 |",
        "| Sampled by | ddim, 3 evaluations a plan |",
    ):
        assert said in card
    assert " s on " in card
    head = head_of(card)
    assert (head["library_name"], head["pipeline_tag"]) == ("policy_accel", "robotics")
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.5


def test_the_card_of_a_policy_without_a_score(run_dir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run_dir, tmp_path / "run", symlinks=True, ignore=shutil.ignore_patterns("evaluation*"))
    Policy.load(copy, device="cpu").save_pretrained(tmp_path / "policy")
    card = (tmp_path / "policy" / "README.md").read_text()
    assert "This policy was not scored in a simulator." in card
    assert "not known: ask whoever recorded them" in card
    assert "model-index" not in head_of(card)


@pytest.mark.parametrize(
    ("data", "licence"),
    [
        ("shipped:pusht_scripted.zarr.zip", "MIT, as policy_accel"),
        ("data/pusht/pusht_cchi_v7_replay.zarr", "MIT, Columbia"),
        ("/somewhere/mine.zarr", None),
        ("unknown", None),
    ],
)
def test_licence_of_known_data(data: str, licence: str | None) -> None:
    found = licence_of(data)
    assert found is None if licence is None else found is not None and found.startswith(licence)


def test_licence_in_a_readme(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\nWalks.\n")
    assert licence_of(str(tmp_path)) == "apache-2.0"
    (tmp_path / "README.md").write_text("---\nlicense: [apache-2.0\n---\n")
    assert licence_of(str(tmp_path)) is None


class FakeHub:
    """Takes what is uploaded, and gives it to those who download it."""

    def __init__(self, root: Path) -> None:
        self.root, self.asked = root, dict[str, Any]()

    def HfApi(self, **settings: Any) -> FakeHub:
        self.asked |= settings
        return self

    def create_repo(self, *, repo_id: str, **settings: Any) -> SimpleNamespace:
        self.asked |= settings
        return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"me/{repo_id}")

    def upload_folder(self, *, repo_id: str, folder_path: Path, **settings: Any) -> SimpleNamespace:
        self.asked |= settings
        shutil.copytree(folder_path, self.root / repo_id)
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}")

    def snapshot_download(self, repo_id: str, **settings: Any) -> str:
        self.asked |= settings
        if not (self.root / repo_id).is_dir():
            raise OSError("404:\nnot there")
        return str(self.root / repo_id)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "hub")
    for name in ("HfApi", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, getattr(fake, name))
    return fake


def test_to_the_hub_and_back(policy: Policy, hub: FakeHub) -> None:
    assert policy.push_to_hub("walks", private=True, token="secret", message="first") == "https://hub/me/walks"
    asked = [hub.asked[name] for name in ("private", "token", "exist_ok", "commit_message", "revision")]
    assert asked == [True, "secret", True, "first", None]
    card = (hub.root / "me/walks/README.md").read_text()
    assert "Policy.from_pretrained('me/walks')" in card
    again = Policy.from_pretrained("me/walks", revision="v1", device="cpu")
    assert hub.asked["revision"] == "v1"
    policy.reset()
    np.testing.assert_array_equal(again.act(np.ones(5)), policy.act(np.ones(5)))


def test_the_example_of_the_docs(
    run_dir: Path, repository: Path, tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (repository / "docs" / "how_to" / "sharing.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "pusht").symlink_to(run_dir)
    monkeypatch.chdir(tmp_path)
    values: dict[str, Any] = {}
    exec(example, values)
    assert values["again"].run.step == 4
    assert (hub.root / "me" / "pusht" / "README.md").is_file()


def test_what_the_hub_refuses_is_one_sentence(
    policy: Policy, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # where ../x is nothing
    with pytest.raises(UserError, match=r"me/none is no folder here, and cannot be downloaded .*\(404: not there\)"):
        Policy.from_pretrained("me/none")
    monkeypatch.setattr(hub, "upload_folder", lambda **_: hub.snapshot_download("none"))
    with pytest.raises(UserError, match=r"walks cannot be written on the hub \(404: not there\)"):
        policy.push_to_hub("walks")
    for name in ("a/b/c", "", "../x"):
        with pytest.raises(UserError, match="no name of a repository"):
            policy.push_to_hub(name)
        with pytest.raises(UserError, match=r"no name of a repository|does not exist"):
            Policy.from_pretrained(name or "./none")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"needs huggingface_hub, which is not here; .*\.\[hub\]"):
        policy.push_to_hub("walks")


def test_nothing_is_overwritten(policy: Policy, run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(UserError, match=r"README.md: exists already and is not overwritten"):
        policy.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    with pytest.raises(UserError, match="is a run directory"):
        policy.save_pretrained(run_dir)
    with pytest.raises(UserError, match=r"settings=\{'task': 'custom'\} are for a policy of another library"):
        Policy.from_pretrained(run_dir, settings={"task": "custom"})
    with pytest.raises(UserError, match="revision=v1 is of a repository of the hub"):
        Policy.from_pretrained(run_dir, revision="v1")
