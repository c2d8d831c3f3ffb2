"""What a page takes from the recorded JSONs, and the list of them at its end."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
FROM_PAGES = "../../benchmarks"
"""Where `benchmarks` lies, seen from a page in docs/results."""


@dataclass
class Recorded:
    """Reads results and records, and remembers which."""

    benchmarks: Path = BENCHMARKS
    used: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Path below `benchmarks` -> content."""

    def result(self, name: str) -> dict[str, Any]:
        """The content of results/NAME.json."""
        return self._read(f"results/{name}.json")

    def record(self, name: str) -> dict[str, Any]:
        """The content of records/NAME.json, as its figures: name -> row."""
        return {row["figure"]: row for row in self._read(f"records/{name}.json")["result"]}

    def link(self, name: str, text: str = "") -> str:
        """A link to results/NAME.json, with its name unless another text is given."""
        self.result(name)
        return f"[{text or f'`{name}.json`'}]({FROM_PAGES}/results/{name}.json)"

    def listing(self) -> str:
        """An item for each file that was read: date, commit, machine and command."""
        return "\n".join(self._line(path, content) for path, content in sorted(self.used.items()))

    def _read(self, path: str) -> dict[str, Any]:
        if path not in self.used:
            self.used[path] = json.loads((self.benchmarks / path).read_text())
        return self.used[path]

    @staticmethod
    def _line(path: str, content: dict[str, Any]) -> str:
        said = [content.get("date"), f"commit {content['commit']}" if "commit" in content else None, _machine(content)]
        circumstances = "; ".join(part for part in said if part)
        made = content.get("made_by", content["command"])
        return f"- [`{Path(path).name}`]({FROM_PAGES}/{path}), {circumstances}\n\n{folded(made)}"


def folded(command: str) -> str:
    """The commands of a record, a line each, folded away below its item of a list: open they would be a wall."""
    lines = ["<details><summary>command</summary>", "", "```sh", *command.split("; "), "```", "", "</details>", ""]
    return "\n".join(f"  {line}".rstrip() for line in lines)


def _machine(content: dict[str, Any]) -> str:
    """The processor, its cores and torch, where the file says so."""
    hardware = content.get("hardware", {})
    torch = hardware.get("torch") or content.get("versions", {}).get("torch") or content.get("torch")
    cores = f"{hardware['cores']} cores of {hardware['cpu']}" if "cores" in hardware else ""
    return ", ".join(part for part in (cores, f"torch {torch}" if torch else "") if part)
