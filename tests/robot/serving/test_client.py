from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.serving import serving

from policy_accel.policy.controller import Policy
from policy_accel.robot.serving import client as client_module
from policy_accel.robot.serving.client import PolicyClient

ALONE = """
import json, sys
for name in ("policy_accel", "torch", "gymnasium"):
    sys.modules[name] = None  # cannot be imported
import numpy as np
from client import PolicyClient

client = PolicyClient(sys.argv[1], token="secret")
observation, actions = {"state": np.zeros(5)}, []
client.reset(seed=3)
for step in range(20):
    observation["state"][:] = step  # a robot that uses its memory again
    actions.append(client.act(observation).tolist())
print(json.dumps(actions))
"""


def driven(policy: Policy, seed: int, steps: int) -> np.ndarray:
    policy.reset(seed)
    return np.array([policy.act(np.full(5, float(step))) for step in range(steps)])


def test_the_client_is_one_short_file_and_acts_as_the_policy_itself(policy: Policy, tmp_path: Path) -> None:
    source = Path(client_module.__file__)
    assert len(source.read_text().splitlines()) <= 60
    shutil.copy(source, tmp_path / "client.py")
    (tmp_path / "robot.py").write_text(ALONE)
    with serving(policy, token="secret") as running:
        command = [sys.executable, "-W", "error", "robot.py", running.url]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert running.policy.figures.batches == 3  # a chunk of 8 actions each
    np.testing.assert_allclose(json.loads(done.stdout), driven(policy, 3, 20), rtol=1e-4, atol=1e-3)


def test_the_example_of_the_docs(
    policy: Policy, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (repository / "docs" / "how_to" / "serving.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    shutil.copy(client_module.__file__, tmp_path / "client.py")
    monkeypatch.syspath_prepend(tmp_path)
    with serving(policy, token="what token.txt holds") as running:
        seen: dict[str, Any] = {}
        exec(example.replace("ws://127.0.0.1:8000", running.url), seen)
        assert running.policy.figures.batches == 3
        told = set(seen["client"].metadata)
    assert seen["action"].shape == (2,)
    named = set(re.findall(r"`(\w+)`", page))
    assert {name for name in told if not name.startswith("sampling_")} <= named


def test_clients_go_on_where_a_server_restarts(policy: Policy) -> None:
    """Nothing is lost: every client has all of its actions, as if the server had never stopped."""
    clients, steps = 6, 120
    found: dict[int, np.ndarray] = {}
    begun, wrong = threading.Event(), []

    def drive(seed: int, url: str) -> None:
        try:
            client = PolicyClient(url, patience=20)
            client.reset(seed)
            actions = []
            for step in range(steps):
                actions.append(client.act(np.full(5, float(step))))
                if step == 30:
                    begun.set()
            found[seed] = np.array(actions)
        except Exception as error:
            wrong.append(error)

    with serving(policy) as running:
        threads = [threading.Thread(target=drive, args=(seed, running.url)) for seed in range(clients)]
        for thread in threads:
            thread.start()
        assert begun.wait(20)
    assert len(found) < clients  # they were in the middle
    with serving(policy, port=running.port) as again:
        for thread in threads:
            thread.join(30)
        assert again.policy.figures.answers > 0
    assert not wrong
    for seed in range(clients):
        np.testing.assert_allclose(found[seed], driven(policy, seed, steps), rtol=1e-4, atol=1e-3)


def test_without_a_server_the_client_gives_up(policy: Policy) -> None:
    with serving(policy) as running:
        client = PolicyClient(running.url, patience=0.3)
        with pytest.raises(RuntimeError, match="shape"):
            client.predict([{"state": np.zeros(4)}])
        assert client.chunk == 0
        assert client.predict([{"state": np.zeros(5)}], horizon=True)["actions"].shape == (15, 2)
        assert client.chunk == 1
    began = time.monotonic()
    with pytest.raises(OSError, match="refused"):
        client.predict([{"state": np.zeros(5)}])
    assert 0.3 <= time.monotonic() - began < 5
