"""What `policy-accel export --to onnx` wrote, driven with numpy and onnxruntime alone. Copy this file."""

import json
from typing import Any

import numpy as np
import onnxruntime


class OnnxPolicy:
    """`OnnxPolicy("policy.onnx").act({"pose": numbers})` gives the next action; `about` says what it takes."""

    def __init__(self, path: str, seed: int = 0, **session: Any) -> None:
        self.session = onnxruntime.InferenceSession(path, **session)
        self.about = json.loads(self.session.get_modelmeta().custom_metadata_map["policy_accel"])
        self.random, self.seen, self.actions = np.random.default_rng(seed), list[Any](), list[Any]()

    def reset(self) -> None:
        """Forget what was seen: an episode begins."""
        self.seen, self.actions = [], []

    def act(self, observation: dict[str, Any]) -> Any:
        """The action [A] for an observation: its fields by name, or all numbers as "state" [O], and pictures uint8
        [H, W, C], in the data's units. ValueError where a name is missing or the numbers are too few or many."""
        steps, now = self.about["n_obs_steps"], self.taken(observation)
        self.seen = [*(self.seen or [now] * steps), now][-steps:]
        if not self.actions:
            self.actions = list(self.predict({k: np.stack([o[k] for o in self.seen])[None] for k in now})[0])
        return self.actions.pop(0)

    def taken(self, observation: dict[str, Any]) -> dict[str, Any]:
        """What the file takes of an observation: the numbers of its fields, in order, as "state", and pictures."""
        names = [name for name in self.about["inputs"] if name not in ("state", "noise")]
        fields = [field.partition("[")[::2] for field in self.about["inputs"]["state"]["fields"]]
        width, whole = self.about["inputs"]["state"]["shape"][-1], np.ravel(observation.get("state", []))
        absent = list(dict.fromkeys(key for key, _ in fields if key not in observation))
        if "state" in observation and (absent or (len(whole) == width and {key for key, _ in fields} <= {"state"})):
            parts, absent = [whole], []
        else:
            parts = [_columns(np.ravel(observation[key]), rows) for key, rows in fields if key in observation]
        if absent := absent + [name for name in names if name not in observation]:
            raise ValueError(
                f"the observation has no {', '.join(absent)}, which the policy takes; it has {[*observation]}."
            )
        numbers = np.concatenate([np.zeros(0), *parts])
        if len(numbers) != width:
            raise ValueError(f"the observation has {len(numbers)} numbers, and the policy takes {width}.")
        return {"state": numbers, **{name: observation[name] for name in names}}

    def predict(self, given: dict[str, Any]) -> Any:
        """The actions [1, n_action_steps, A] to execute next, of [1, n_obs_steps, ...] each and, if wanted, "noise"."""
        given = {"noise": self.random.standard_normal([1, *self.about["inputs"]["noise"]["shape"][1:]]), **given}
        arrays = {name: np.asarray(given[name], entry["dtype"]) for name, entry in self.about["inputs"].items()}
        return self.session.run(["actions"], arrays)[0]


def _columns(values: Any, rows: str) -> Any:
    """Of "key[a:b]" the columns, from `rows` "a:b]"; all for ""."""
    start, _, stop = rows.rstrip("]").partition(":")
    return values[int(start) if start else None : int(stop) if stop else None]
