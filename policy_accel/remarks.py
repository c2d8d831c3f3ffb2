"""Warnings of ours as sentences for people, on the command line and in a program that imports the package."""

from __future__ import annotations

import os
import warnings


def as_sentences() -> None:
    """Let a warning of this package be one line, without the line of code that gave it; those of others stay."""
    warnings.formatwarning = _remark


def _remark(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    if category is UserWarning and filename.startswith(os.path.dirname(__file__) + os.sep):
        return f"remark: {message}\n"
    return _python_form(message, category, filename, lineno, line)


_python_form = warnings.formatwarning
