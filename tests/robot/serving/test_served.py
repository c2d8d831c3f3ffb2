from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from support.data import write_zarr

from policy_accel.data import Episodes
from policy_accel.policy.controller import Policy
from policy_accel.policy.track import ROBOT
from policy_accel.robot.serving.batching import Batcher
from policy_accel.robot.serving.client import array
from policy_accel.robot.serving.messages import encode
from policy_accel.robot.serving.served import Connection, Job, ServedPolicy, batch_size


def observations(seed: int, count: int = 2) -> list[dict[str, np.ndarray]]:
    return [{"state": row} for row in np.random.default_rng(seed).normal(size=(count, 5))]


def answers(served: ServedPolicy, *requests: dict[str, Any], connections: list[Connection] | None = None) -> list[Any]:
    """What becomes of requests that wait together: maps, or sentences."""
    jobs = [
        Job(served, connection, encode(request))
        for request, connection in zip(requests, connections or [Connection() for _ in requests], strict=True)
    ]
    served.answer(jobs)
    found = [job.answer.result(0) for job in jobs]
    return [msgpack.unpackb(one, object_hook=array) if isinstance(one, bytes) else one for one in found]


def test_requests_that_wait_together_are_one_batch_and_do_not_change_each_other(policy: Policy) -> None:
    requests = [{"observations": observations(seed), "seed": seed, "chunk": seed % 3} for seed in range(6)]
    wrong = [{"observations": [{"state": np.zeros(4)}]}, {"observations": [{}]}]
    together = ServedPolicy("a", policy, 64)
    found = answers(together, *requests[:3], *wrong, *requests[3:])
    assert [type(answer) for answer in found] == [dict] * 3 + [str] * 2 + [dict] * 3
    assert "shape (4,); this policy takes 5 numbers" in found[3]
    assert (together.figures.batches, together.figures.batched, together.figures.refusals) == (1, 6, 2)
    in_twos, alone = ServedPolicy("b", policy, 2), ServedPolicy("c", policy, 64)
    twos = answers(in_twos, *requests)
    assert (in_twos.figures.batches, in_twos.figures.largest) == (3, 2)
    for request, one, two in zip(requests, [*found[:3], *found[5:]], twos, strict=True):
        expected = answers(alone, request)[0]["actions"]
        assert expected.shape == (8, 2)
        np.testing.assert_allclose(one["actions"], expected, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(two["actions"], expected, rtol=1e-4, atol=1e-3)
    again = answers(alone, {**requests[0], "seed": 9}, {**requests[0], "chunk": 9}, requests[0])
    assert len({answer["actions"].tobytes() for answer in again}) == 3


def test_an_episode_goes_on_by_itself(policy: Policy) -> None:
    """The connection counts chunks; a reset, or another seed, begins anew; what is refused does not count."""
    served, connection = ServedPolicy("a", policy, 64), [Connection()]
    seen = {"observations": observations(0)}

    def ask(request: dict[str, Any]) -> Any:
        return answers(served, request, connections=connection)[0]

    assert [(ask(seen)["seed"], ask(seen)["chunk"])] == [(0, 1)]
    assert "not finite" in ask({"observations": [{"state": np.full(5, np.nan)}]})
    assert ask(seen)["chunk"] == 2
    assert ask({"reset": 7}) == {"reset": 7}
    first = ask(seen)
    assert (first["seed"], first["chunk"]) == (7, 0)
    assert (ask({**seen, "seed": 8})["chunk"], ask(seen)["chunk"]) == (0, 1)
    assert ask({**seen, "seed": 7, "chunk": 0})["actions"].tolist() == first["actions"].tolist()
    rest = ask({**seen, "seed": 7, "chunk": 0, "horizon": True})["actions"]
    assert rest.shape == (15, 2)
    np.testing.assert_array_equal(rest[:8], first["actions"])
    lone, twice = ({"observations": rows, "chunk": 0} for rows in (observations(0, 1), observations(0, 1) * 2))
    assert ask(lone)["actions"].tolist() == ask(twice)["actions"].tolist()
    assert "has 3 entries; this policy takes the 2 newest" in ask({"observations": observations(0, 3)})
    assert ask({})["n_obs_steps"] == 2


def test_weights_that_are_damaged_and_faults_of_the_server_are_told(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served, batcher = ServedPolicy("a", policy, 64), Batcher()
    monkeypatch.setattr(served, "actions", lambda windows, *_: np.full((len(windows), 15, 2), np.nan))
    assert "NaN or infinite action" in answers(served, {"observations": observations(0)})[0]

    def fault(*_: Any) -> np.ndarray:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(served, "actions", fault)
    job = Job(served, Connection(), encode({"observations": observations(0)}))
    batcher._jobs.put(job)
    assert job.answer.result(5) == "the server could not answer: RuntimeError: out of memory"
    assert served.figures.failures == 1
    monkeypatch.undo()
    after = Job(served, Connection(), encode({"observations": observations(0)}))
    batcher._jobs.put(after)
    assert isinstance(after.answer.result(5), bytes)
    batcher.close()
    assert capsys.readouterr().err == "policy-accel: a: RuntimeError: out of memory\n"


def test_what_arrives_during_a_prediction_is_the_next_batch(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    served, batcher = ServedPolicy("a", policy, 64), Batcher()
    sizes, begun, go, actions = [], threading.Event(), threading.Event(), served.actions

    def slow(windows: Any, *rest: Any) -> np.ndarray:
        sizes.append(len(windows))
        begun.set()
        assert go.wait(5)
        return actions(windows, *rest)

    monkeypatch.setattr(served, "actions", slow)
    jobs = [Job(served, Connection(), encode({"observations": observations(seed)})) for seed in range(6)]
    batcher._jobs.put(jobs[0])
    assert begun.wait(5)
    for job in jobs[1:]:
        batcher._jobs.put(job)
    go.set()
    batcher.close()  # answers what waits
    assert all(isinstance(job.answer.result(0), bytes) for job in jobs)
    assert sizes == [1, 5]


def test_batches_have_few_sizes(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs and the CPU's convolutions keep something for each."""
    served, sizes = ServedPolicy("a", policy, 64), []
    windows = [[{"state": row["state"]} for row in observations(seed)] for seed in range(5)]
    expected = [served.actions([window], [row], [0])[0] for row, window in enumerate(windows)]
    planner = served.planner
    monkeypatch.setattr(served, "planner", lambda seen, noise: sizes.append(noise.shape[0]) or planner(seen, noise))
    found = served.actions(windows, list(range(5)), [0] * 5)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    assert sizes == [6]
    assert [batch_size(rows) for rows in (1, 2, 3, 4, 5, 7, 9, 13, 48, 49, 64)] == [
        1,
        2,
        3,
        4,
        6,
        8,
        12,
        16,
        48,
        64,
        64,
    ]


def test_pictures_are_served(tmp_path: Path) -> None:
    """The metadata name them, and the largest message has room for them."""
    values = np.random.default_rng(0)
    arrays = {
        "img": values.integers(0, 256, (25, 48, 48, 3), dtype=np.uint8),
        "state": values.uniform(0, 512, (25, 5)).astype("f4"),
        "action": values.uniform(0, 512, (25, 2)).astype("f4"),
    }
    write_zarr(tmp_path / "filmed.zarr.zip", Episodes(arrays, np.array([25])))
    net = ["model=unet", "model.down_dims=[8,16]", "model.kernel_size=3", "encoder.resnet.width=16", "encoder.crop=40"]
    training = ["training.steps=1", "training.batch_size=2", "training.device=cpu", "evaluation.episodes=0"]
    where = [f"task.data={tmp_path / 'filmed.zarr.zip'}", f"run_dir={tmp_path / 'run'}"]
    ROBOT.train(ROBOT.config(["task=pusht_image", *net, *training, *where, "sampling.steps=2"]))
    policy = Policy.load(tmp_path / "run", device="cpu")
    served = ServedPolicy("a", policy, 64)
    served.warm_up()
    told = served.metadata()["observation"]
    assert told["images"] == {"image": [48, 48, 3]}
    assert served.window_bytes() == 2 * (48 * 48 * 3 + 8 * told["numbers"])
    seen = {"image": arrays["img"][3], "agent_pos": np.array([100.0, 200.0])}
    small = seen | {"image": arrays["img"][3, ::2]}
    answer, refusal = answers(served, {"observations": [seen]}, {"observations": [small]})
    np.testing.assert_allclose(answer["actions"][0], policy.act(seen), rtol=1e-4, atol=1e-3)
    assert "picture 'img'" in refusal
