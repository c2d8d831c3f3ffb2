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
        self.random = np.random.default_rng(seed)
        self.reset()

    def reset(self) -> None:
        """Forget what was seen: an episode begins."""
        self.seen: list[Any] = []
        self.actions: list[Any] = []

    def act(self, observation: dict[str, Any]) -> Any:
        """The action [A] for an observation: "state" [O] and pictures uint8 [H, W, C], in the data's units."""
        steps = self.about["n_obs_steps"]
        self.seen = [*(self.seen or [observation] * steps), observation][-steps:]
        if not self.actions:
            window = {name: np.stack([seen[name] for seen in self.seen])[None] for name in observation}
            self.actions = list(self.predict(window)[0])
        return self.actions.pop(0)

    def predict(self, given: dict[str, Any]) -> Any:
        """The actions [1, n_action_steps, A] to execute next, of [1, n_obs_steps, ...] each and, if wanted, "noise"."""
        inputs = self.about["inputs"]
        given = {"noise": self.random.standard_normal([1, *inputs["noise"]["shape"][1:]]), **given}
        given = {name: np.asarray(given[name], entry["dtype"]) for name, entry in inputs.items()}
        return self.session.run(["actions"], given)[0]
