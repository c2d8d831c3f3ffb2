from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from policy_accel import groups
from policy_accel.configuration import Source, compose_config
from policy_accel.errors import UserError
from policy_accel.groups import register_group, typed


@dataclass
class Colour:
    name: str = "none"


@dataclass
class Plain(Colour):
    name: str = "plain"
    red: int = 1


@dataclass
class Striped(Colour):
    name: str = "striped"
    width: int = 2
    red: int = 3


@dataclass
class Wall:
    colour: Colour = field(default_factory=Colour)


@dataclass
class House:
    wall: Wall = field(default_factory=Wall)
    floors: int = 1


@pytest.fixture
def track(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A track of houses with a group `wall/colour`, a recipe that stripes them and one that sets a width only."""
    monkeypatch.setattr(groups, "_GROUPS", {})
    monkeypatch.setattr(ConfigStore.instance(), "repo", dict(ConfigStore.instance().repo))
    register_group("wall/colour", Colour, [Colour, Plain])
    register_group("wall/colour", Colour, [Striped])
    ConfigStore.instance().store(name="house", node=House, provider="houses")
    (tmp_path / "recipe").mkdir()
    (tmp_path / "train.yaml").write_text(
        "defaults:\n- house\n- wall/colour: none\n- recipe: small\n- method: baseline\n- _self_\n"
    )
    (tmp_path / "recipe" / "small.yaml").write_text("# @package _global_\nfloors: 2\n")
    (tmp_path / "recipe" / "stripes.yaml").write_text(
        "# @package _global_\ndefaults:\n- override /wall/colour: striped\nwall: {colour: {width: 5}}\n"
    )
    (tmp_path / "recipe" / "wide.yaml").write_text("# @package _global_\nwall: {colour: {width: 5}}\n")
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "baseline.yaml").write_text("# @package _global_\n{}\n")
    return Source("houses", "houses", tmp_path, "look")


def built(track: Source, *overrides: str) -> House:
    config = OmegaConf.to_object(compose_config(track, [*overrides, "method=baseline"]))
    assert isinstance(config, House)
    return config


def test_the_default_is_the_base_class(track: Source) -> None:
    assert built(track) == House(floors=2)


def test_a_choice_brings_its_own_settings(track: Source) -> None:
    assert built(track, "wall/colour=striped", "wall.colour.width=7").wall.colour == Striped(width=7)


def test_a_recipe_chooses_and_the_command_line_wins(track: Source) -> None:
    assert built(track, "recipe=stripes").wall.colour == Striped(width=5)
    assert built(track, "recipe=stripes", "wall.colour.width=6").wall.colour == Striped(width=6)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["wall/colour=stripped"], r"wall/colour=stripped is unknown; did you mean 'striped'\?"),
        (
            ["wall/colour=xyz"],
            "wall/colour=xyz is unknown; known are: none, plain, striped; those of a plugin need",
        ),
        (["wall/color=plain"], r"no key 'wall/color'; did you mean 'wall/colour'\?"),
        (["wall.colour=striped"], "wall.colour=striped: write wall/colour=striped to choose it, with a slash."),
        (["wall.colour.name=striped"], "wall.colour.name=striped does not choose it; write wall/colour=striped."),
        (
            ["wall.colour.width=3"],
            "wall.colour.width is a setting of wall/colour=striped; this run has wall/colour=none.",
        ),
        (["wall.colour.red=3"], "wall.colour.red is a setting of wall/colour=plain or wall/colour=striped; this run"),
        (["wall/colour=striped", "wall.colour.wdth=3"], r"no key 'wall.colour.wdth'; did you mean 'wall.colour.width'"),
        (
            ["wall/colour=plain", "wall.colour.red=dark"],
            "wall.colour.red=dark must be a whole number",
        ),
        (["recipe=wide"], "wall.colour.width is a setting of wall/colour=striped; this run has wall/colour=none."),
        (
            ["recipe=stripes", "wall/colour=plain"],
            "wall.colour.width is a setting of wall/colour=striped; this run has wall/colour=plain.",
        ),
    ],
)
def test_mistakes_are_named(track: Source, overrides: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        built(track, *overrides)


@pytest.mark.parametrize("colour", [Colour(), Plain(red=4), Striped(width=9)])
def test_recorded_values_find_their_dataclass_by_name(track: Source, colour: Colour) -> None:
    house = House(Wall(colour), 3)
    values: Any = OmegaConf.to_container(OmegaConf.structured(house))
    assert typed(House, values, "houses") == house


def test_a_recorded_choice_that_nobody_registered_is_refused(track: Source) -> None:
    with pytest.raises(ValueError, match=r"wall/colour=dotted is unknown; known are: none, plain, striped"):
        typed(House, {"wall": {"colour": {"name": "dotted"}}}, "houses")


def test_a_choice_of_one_track_is_not_one_of_another(track: Source) -> None:
    register_group("floor", Colour, [Plain], track="boats")
    assert [group.name for group in groups.groups_of("houses")] == ["wall/colour"]
    assert [group.name for group in groups.groups_of("boats")] == ["wall/colour", "floor"]


def test_a_choice_has_a_name_of_its_own_and_the_base_of_its_group(track: Source) -> None:
    @dataclass
    class Second(Colour):
        name: str = "plain"

    @dataclass
    class Nameless(Colour):
        name: str = ""

    with pytest.raises(ValueError, match="Nameless needs a field `name: str`"):
        register_group("wall/colour", Colour, [Nameless])
    with pytest.raises(ValueError, match="Wall needs a field `name: str`"):
        register_group("wall/colour", Colour, [Wall])
    with pytest.raises(ValueError, match="Plain must derive from Striped"):
        register_group("roof", Striped, [Plain])
    with pytest.raises(ValueError, match=r"wall/colour=plain is .*Plain; choose another name"):
        register_group("wall/colour", Colour, [Second])
