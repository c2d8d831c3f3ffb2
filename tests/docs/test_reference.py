"""The generated reference: every setting, choice and command, with what it says of them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

import pytest
from generators.choices import choices_page
from generators.commands import commands_page, every_command
from generators.markup import markdown, restructured
from generators.settings import Setting, sections, settings_pages

from policy_accel.cli import build_parser, main
from policy_accel.configuration import SOURCES, compose_config, plain
from policy_accel.groups import flatten, groups_of
from policy_accel.track import track
from policy_accel.training.precision import PRECISIONS


def all_settings(name: str) -> dict[str, Setting]:
    return {setting.key: setting for section in sections(name) for setting in section.settings}


@pytest.mark.parametrize("name", SOURCES)
def test_every_setting_of_a_run_is_described(name: str) -> None:
    track(name).register()
    needed = (
        ["task=custom", "task.data=x", "task.observation=[a]", "task.action=b"] if name == "robot" else ["task=mnist"]
    )
    keys = flatten(plain(compose_config(SOURCES[name], [*needed, "training/optimizer=muon"]), resolve=False))
    found = all_settings(name)
    chosen = {f"{group.path}.name" for group in groups_of(name)}
    dictionaries = SOURCES[name].open_sections
    assert len(keys) > 100
    assert {key for key in keys if key not in chosen and not key.startswith(dictionaries)} <= set(found)
    assert [key for key, setting in found.items() if not setting.text] == []


def test_what_is_said_of_a_setting() -> None:
    found = all_settings("robot")
    steps, precision = found["training.steps"], found["training.precision"]
    assert steps == Setting("training.steps", "int", "10000", "Optimiser updates of the whole run.")
    assert precision.allowed == PRECISIONS
    assert found["task.data"].default is None
    assert found["training.optimizer.clip_grad_norm"].kind == "float or null"
    assert found["training.optimizer.clip_grad_norm"].default == "null"
    assert found["model.down_dims"].default == "[256, 512, 1024]"
    assert all_settings("images")["model.embedding"].allowed == ("positional", "fourier")


def test_the_settings_of_a_choice_stand_below_it() -> None:
    inside = {section.title: [setting.key for setting in section.settings] for section in sections("robot")}
    assert "acceleration.noise.candidates" in inside["acceleration/noise=nearest"]
    assert inside["acceleration/noise=independent"] == []
    assert "training.optimizer.matrix_lr" in inside["training/optimizer=muon"]
    assert "training.optimizer.matrix_lr" not in inside["training/optimizer=adamw"]
    assert "model.causal" in inside["model=transformer"]


def test_a_setting_is_on_one_page_and_in_the_index_once() -> None:
    pages = settings_pages()
    keys = {name: set(re.findall(r"^```\{confval\} (\S+)$", page, re.MULTILINE)) for name, page in pages.items()}
    assert "training.steps" in keys["settings"]
    assert {"seed", "run_dir", "plugins"} <= keys["settings"]
    assert "init_normalizer" in keys["settings_robot"]
    assert "task.resolution" in keys["settings_images"]
    assert not keys["settings"] & (keys["settings_robot"] | keys["settings_images"])
    blocks = re.findall(r"^```\{confval\} (\S+)$(.*?)^```$", "\n".join(pages.values()), re.MULTILINE | re.DOTALL)
    indexed = [key for key, block in blocks if ":no-index:" not in block]
    assert sorted(indexed) == sorted(set.union(*keys.values()))


def test_choices_are_those_of_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    page = choices_page()
    for kind in ("tasks", "recipes", "methods", "models", "acceleration/noise"):
        assert main(["list", kind]) == 0
        lines = re.findall(r"^  (\S+) +(.*)$", capsys.readouterr().out, re.MULTILINE)
        assert len(lines) > 4
        for name, text in lines:
            assert f"| `{name}` | {markdown(text)} |" in page


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from re.findall(r"^  (--[\w-]+)", parser.format_help(), re.MULTILINE)


def test_every_command_and_option_is_described() -> None:
    page = commands_page()
    parts = {part.split("\n")[0]: part for part in page.split("## ")[1:]}
    found = list(every_command(build_parser(), ""))
    assert {parser.prog for parser, _ in found} == set(parts)
    assert {"policy-accel train", "policy-accel data inspect", "policy-accel data generate lift"} <= set(parts)
    assert sum(len(list(options(parser))) for parser, _ in found) > 100
    for parser, _ in found:
        for option in options(parser):
            assert re.search(rf"^```\{{option\}} (.*, )?{option}\b", parts[parser.prog], re.MULTILINE), option


def test_what_is_said_of_an_argument() -> None:
    part = commands_page().split("## policy-accel report\n")[1].split("\n## ")[0]
    assert "```{program} policy-accel report\n```" in part
    evaluate = commands_page().split("## policy-accel evaluate\n")[1].split("\n## ")[0]
    assert "```{option} --delay-ms MS\n\na chunk takes so long, and the simulator does not wait\n```" in evaluate
    assert "**Policies**" in evaluate


def test_plain_text_keeps_its_characters() -> None:
    assert markdown("a *b* of [B, C] in `x_t[0]*` costs $1") == r"a \*b\* of \[B, C\] in `x_t[0]*` costs \$1"
    assert restructured("*S of |x| and `a*b`, name_ or x_t") == r"\*S of \|x\| and `a*b`, name\_ or x_t"
