"""Mutations of policy_accel/report."""

from __future__ import annotations

from mutations import of

MUTATIONS = [
    *of(
        "report/curves.py",
        "report/test_curves.py",
        ("if first <= step <= last", "if True"),
        ("values.mean(axis=0)", "values.max(axis=0)"),
        ("[*high, *low[::-1]]", "[*high, *high[::-1]]"),
        ("float(part[:, 1].mean())", "float(part[0, 1])"),
    ),
    *of(
        "report/scores.py",
        "report/test_scores.py",
        ("if score >= target", "if score > target"),
        ('if r.get("step") == newest', "if True"),
        ('if len(run.points("score")) > 1]', "if True]"),
        ("if len(reached) < len(own):", "if False:"),
    ),
    *of(
        "report/media.py",
        "report/test_media.py",
        ("path.is_symlink() or ", ""),
        ("or size > self.size", ""),
        ("if marks not in content:", "if False:"),
    ),
    *of(
        "report/page.py",
        "report/test_page.py report/test_browser.py",
        ('.replace("<", "\\\\u003c")', ""),
        ("MARK.encode() not in _beginning(path)", "False"),
        ("if path.is_symlink() or (", "if ("),
        ("autoescape=True", "autoescape=False"),
    ),
]
