"""What `policy-accel export --to onnx` wrote, driven with numpy and onnxruntime alone. Copy this file."""

import json
from typing import Any

import numpy as np
import onnxruntime


class OnnxPolicy:
    """`OnnxPolicy("policy.onnx").act({"state": numbers})` gives the next action; `about` says what it takes."""

    def __init__(self, path: str, seed: int = 0, **session: Any) -> None:
        self.session = onnxruntime.InferenceSession(path, **session)
        self.about = json.loads(self.session.get_modelmeta().custom_metadata_map["policy_accel"])
        self.random, self.seen, self.actions = np.random.default_rng(seed), list[Any](), list[Any]()

    def reset(self) -> None:
        """Forget what was seen: an episode begins."""
        self.seen, self.actions = [], []

    def act(self, observation: dict[str, Any]) -> Any:
        """The action [A] for an observation: "state" [O] and pictures uint8 [H, W, C], in the data's units."""
        steps = self.about["n_obs_steps"]
        self.seen = [*(self.seen or [observation] * steps), observation][-steps:]
        if not self.actions:
            self.actions = list(self.predict({k: np.stack([o[k] for o in self.seen])[None] for k in observation})[0])
        return self.actions.pop(0)

    def predict(self, given: dict[str, Any]) -> Any:
        """The actions [1, n_action_steps, A] to execute next, of [1, n_obs_steps, ...] each and, if wanted, "noise"."""
        given = {"noise": self.random.standard_normal([1, *self.about["inputs"]["noise"]["shape"][1:]]), **given}
        arrays = {name: np.asarray(given[name], entry["dtype"]) for name, entry in self.about["inputs"].items()}
        return self.session.run(["actions"], arrays)[0]
