"""The forms for issues, by the rules of GitHub's form schema, which shows no form that breaks one of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from policy_accel.commands.arguments import build_parser

TOP = {"name", "description", "body", "labels", "title", "assignees", "projects", "type"}
ATTRIBUTES = {
    "markdown": ({"value"}, set()),
    "input": ({"label"}, {"description", "placeholder", "value"}),
    "textarea": ({"label"}, {"description", "placeholder", "value", "render"}),
    "dropdown": ({"label", "options"}, {"description", "multiple", "default"}),
    "checkboxes": ({"label", "options"}, {"description"}),
}
"""Type -> attributes that it needs and that it may have."""
FORMS = ("bug", "feature", "method")


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, repository: Path) -> dict[str, Any]:
    return yaml.safe_load((repository / f".github/ISSUE_TEMPLATE/{request.param}.yml").read_text())


def test_keys_of_a_form(form: dict[str, Any]) -> None:
    assert {"name", "description", "body"} <= set(form) <= TOP
    assert all(isinstance(form[key], str) and form[key] for key in ("name", "description"))
    assert all(isinstance(label, str) for label in form["labels"])
    assert any(field["type"] != "markdown" for field in form["body"])


def test_fields_of_a_form(form: dict[str, Any]) -> None:
    ids, labels = [field["id"] for field in form["body"]], [field["attributes"]["label"] for field in form["body"]]
    assert len(set(ids)) == len(ids)
    assert len(set(labels)) == len(labels)
    for field in form["body"]:
        assert {"type", "id", "attributes"} <= set(field) <= {"type", "id", "attributes", "validations"}
        assert re.fullmatch(r"[A-Za-z0-9_-]+", field["id"])
        needed, allowed = ATTRIBUTES[field["type"]]
        assert needed <= set(field["attributes"]) <= needed | allowed
        assert set(field.get("validations", {})) <= {"required"}
        assert isinstance(field.get("validations", {}).get("required", False), bool)
        for option in field["attributes"].get("options", []):
            assert isinstance(option, str), "YAML reads yes, no and numbers as something else"


def test_there_is_no_other_form(repository: Path) -> None:
    folder = repository / ".github" / "ISSUE_TEMPLATE"
    assert {path.name for path in folder.iterdir()} == {f"{name}.yml" for name in (*FORMS, "config")}
    assert set(yaml.safe_load((folder / "config.yml").read_text())) <= {"blank_issues_enabled", "contact_links"}


def test_commands_that_a_form_names_exist(form: dict[str, Any]) -> None:
    asked = [action for action in build_parser()._actions if action.dest == "command"]
    known = set(asked[0].choices or ()) if asked else set()
    for command in re.findall(r"policy-accel ([\w-]+)", yaml.safe_dump(form, width=10_000)):
        assert command in known
