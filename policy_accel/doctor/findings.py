"""What was found out, a line each."""

from __future__ import annotations

from dataclasses import dataclass

OK, NOTE, MISSING, BROKEN = "ok", "note", "missing", "broken"
CORE = "Core"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        group: heading that it stands below.
        name: what was looked at.
        state: ok; note, for what works and may surprise; missing; broken, for what is there and does not work.
        said: what was found.
        remedy: what puts it right, in one line; "" where nothing is wrong.
    """

    group: str
    name: str
    state: str
    said: str
    remedy: str = ""

    @property
    def bad(self) -> bool:
        """Whether something does not work."""
        return self.state in (MISSING, BROKEN)


def page(findings: list[Finding]) -> str:
    """The findings as text, below their groups in the order in which these come first."""
    width = max((len(finding.name) for finding in findings), default=0)
    lines = []
    for group in dict.fromkeys(finding.group for finding in findings):
        lines.append(group)
        for finding in findings:
            if finding.group == group:
                lines.append(f"  {finding.state:<7}  {finding.name:<{width}}  {finding.said}".rstrip())
                if finding.remedy:
                    lines.append(f"{'':<{13 + width}}{finding.remedy}")
    return "\n".join(lines)
