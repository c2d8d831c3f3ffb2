from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from policy_accel.commands.output import again, words_of


@pytest.mark.parametrize(("count", "program"), [("1", "policy-accel"), ("2", "torchrun ... -m policy_accel")])
def test_a_command_is_named_as_it_was_started(monkeypatch: pytest.MonkeyPatch, count: str, program: str) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", count)
    options = Namespace(command="train", overrides=["seed=1", "run_dir=my runs"], config_dir=Path("mine"))
    assert again(words_of(options)) == f"{program} train seed=1 'run_dir=my runs' --config-dir mine"
