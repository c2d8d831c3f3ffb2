"""Mutations of policy_accel/robot."""

from __future__ import annotations

from mutations import of

MUTATIONS = [
    *of(
        "robot/hub.py",
        "robot/test_hub.py",
        ("if data_licence is not None:", "if False:"),
        ("save_pretrained(run, folder, name=name,", "save_pretrained(run, folder,"),
    ),
    *of(
        "robot/control/controller.py",
        "robot/control/test_controller.py",
        ("+ self._ahead - self._chunk.tick", "- self._chunk.tick"),
        ("self._delays.append(self._step - self._pending.tick)", "pass"),
        ("self._origin = now - self._step * self._period", "pass"),
        ("self._chunk.predicted - self._ahead - self.n_latency_steps", "self._every"),
        ("seen = min(seen, round(", "round(("),
        ("            self._predictor.discard()", "            pass"),
        ("            self._history.pop()", "            pass"),
    ),
    *of(
        "robot/control/joining.py",
        "robot/control/test_joining.py",
        ("math.exp(-DECAY * age)", "1.0"),
        ("end - min(frozen, end) + 1", "end - min(frozen, end)"),
        ("self._first + request.latency_steps, steps", "request.latency_steps, steps"),
        ("actions[-1] + ahead * (actions[-1] - actions[-2])", "actions[-1] + 0 * ahead"),
    ),
    *of("robot/control/process.py", "robot/control/test_process.py", ("isinstance(reply, UserError)", "reply is None")),
    *of(
        "robot/control/delayed.py",
        "robot/control/test_controller.py robot/control/test_evaluate.py",
        ("self._predictions.seconds if request.number else 0.0", "self._predictions.seconds"),
        ("self._ready - ROUNDING", "self._ready + ROUNDING"),
        ("if chunk_index[slot] == 0:", "if False:"),
    ),
    *of(
        "robot/serving/server.py",
        "robot/serving/test_server.py",
        ("return known and scheme", "return True or scheme"),
        ("origins=[None]", "origins=None"),
        ("max_size=self.max_bytes", "max_size=None"),
        ("compression=None", 'compression="deflate"'),
    ),
    *of(
        "robot/serving/messages.py",
        "robot/serving/test_messages.py",
        ("if parts > MAX_PARTS", "if False"),
        ("or name not in DTYPES", ""),
        ("or len(data) != size", ""),
    ),
    *of(
        "robot/serving/served.py",
        "robot/serving/test_served.py",
        ("job.connection.seed, job.connection.chunk = request.seed, 0", "job.connection.seed = request.seed"),
        ("if not np.isfinite(chunk).all()", "if False"),
        ("range(0, len(taken), self.max_batch)", "range(0, len(taken), 1)"),
    ),
    *of(
        "robot/serving/client.py",
        "robot/serving/test_client.py",
        ("copy.deepcopy(observation)", "observation"),
        ("self.chunk + isinstance(answer, bytes)", "self.chunk + 1"),
    ),
]
