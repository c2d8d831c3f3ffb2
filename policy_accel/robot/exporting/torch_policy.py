"""What `policy-accel export --to torch` wrote, driven with torch alone. Copy this file."""

import json
from typing import Any

import torch


class TorchPolicy:
    """`TorchPolicy("policy.pt2").act({"pose": numbers})` gives the next action; `about` says what it takes."""

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
        """The action [A] for an observation: its fields by name, or all numbers as "state" [O], and pictures uint8
        [H, W, C], in the data's units. ValueError where a name is missing or the numbers are too few or many."""
        steps, now = self.about["n_obs_steps"], self.taken(observation)
        self.seen = [*(self.seen or [now] * steps), now][-steps:]
        if not self.actions:
            self.actions = list(self.predict({k: torch.stack([o[k] for o in self.seen])[None] for k in now})[0])
        return self.actions.pop(0)

    def taken(self, observation: dict[str, Any]) -> dict[str, Any]:
        """What the file takes of an observation: the numbers of its fields, in order, as "state", and pictures."""
        names = [name for name in self.about["inputs"] if name not in ("state", "noise")]
        fields = [field.partition("[")[::2] for field in self.about["inputs"]["state"]["fields"]]
        width, whole = self.about["inputs"]["state"]["shape"][-1], _flat(observation.get("state", []))
        absent = list(dict.fromkeys(key for key, _ in fields if key not in observation))
        if "state" in observation and (absent or (len(whole) == width and {key for key, _ in fields} <= {"state"})):
            parts, absent = [whole], []
        else:
            parts = [_columns(_flat(observation[key]), rows) for key, rows in fields if key in observation]
        if absent := absent + [name for name in names if name not in observation]:
            raise ValueError(
                f"the observation has no {', '.join(absent)}, which the policy takes; it has {[*observation]}."
            )
        numbers = torch.cat([torch.zeros(0, dtype=torch.float64), *parts])
        if len(numbers) != width:
            raise ValueError(f"the observation has {len(numbers)} numbers, and the policy takes {width}.")
        return {"state": numbers, **{name: torch.as_tensor(observation[name]) for name in names}}

    def predict(self, given: dict[str, Any]) -> Any:
        """The actions [1, n_action_steps, A] to execute next, of [1, n_obs_steps, ...] each and, if wanted, "noise"."""
        inputs = self.about["inputs"]
        given = {"noise": torch.randn([1, *inputs["noise"]["shape"][1:]], generator=self.random), **given}
        ordered = [given[name].to(self.device, getattr(torch, entry["dtype"])) for name, entry in inputs.items()]
        with torch.no_grad():
            return self.program(*ordered)[0]


def _columns(values: Any, rows: str) -> Any:
    """Of "key[a:b]" the columns, from `rows` "a:b]"; all for ""."""
    start, _, stop = rows.rstrip("]").partition(":")
    return values[int(start) if start else None : int(stop) if stop else None]


def _flat(values: Any) -> Any:
    return torch.as_tensor(values, dtype=torch.float64).reshape(-1)
