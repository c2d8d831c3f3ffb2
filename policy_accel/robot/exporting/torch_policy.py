"""What `policy-accel export --to torch` wrote, driven with torch alone. Copy this file."""

import json
from typing import Any

import torch


class TorchPolicy:
    """`TorchPolicy("policy.pt2").act({"state": numbers})` gives the next action; `about` says what it takes."""

    def __init__(self, path: Any, seed: int = 0, device: str = "cpu") -> None:
        files = {"policy.json": ""}
        program = torch.export.load(path, extra_files=files)
        if device != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        self.program, self.device, self.about = program.module(), device, json.loads(files["policy.json"])
        self.random, self.seen, self.actions = torch.Generator().manual_seed(seed), list[Any](), list[Any]()

    def reset(self) -> None:
        """Forget what was seen: an episode begins."""
        self.seen, self.actions = [], []

    def act(self, observation: dict[str, Any]) -> Any:
        """The action [A] for an observation: "state" [O] and pictures uint8 [H, W, C], in the data's units."""
        steps, now = self.about["n_obs_steps"], {name: torch.as_tensor(value) for name, value in observation.items()}
        self.seen = [*(self.seen or [now] * steps), now][-steps:]
        if not self.actions:
            self.actions = list(self.predict({k: torch.stack([o[k] for o in self.seen])[None] for k in now})[0])
        return self.actions.pop(0)

    def predict(self, given: dict[str, Any]) -> Any:
        """The actions [1, n_action_steps, A] to execute next, of [1, n_obs_steps, ...] each and, if wanted, "noise"."""
        inputs = self.about["inputs"]
        given = {"noise": torch.randn([1, *inputs["noise"]["shape"][1:]], generator=self.random), **given}
        ordered = [given[name].to(self.device, getattr(torch, entry["dtype"])) for name, entry in inputs.items()]
        with torch.no_grad():
            return self.program(*ordered)[0]
