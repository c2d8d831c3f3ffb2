"""Configuration groups of typed choices: `acceleration/noise=nearest` picks the dataclass of that choice.

A choice is a dataclass derived from the group's base, which annotates the field of the configuration; the field `name`
tells them apart, also in a recorded config.yaml. The base itself may be a choice ("off"), and the field's default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from policy_accel.errors import UserError, did_you_mean
from policy_accel.typed_values import literal


@dataclass(frozen=True)
class Group:
    """One group: its name with slashes, the base class, the track that it belongs to (None for all) and its choices."""

    name: str
    base: type
    track: str | None
    choices: dict[str, type] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Where its settings lie, as "acceleration.noise"."""
        return self.name.replace("/", ".")

    def having(self, setting: str) -> list[str]:
        """The choices that have a setting."""
        return [name for name, node in self.choices.items() if setting in {field.name for field in _fields(node)}]


_GROUPS: dict[tuple[str, str | None], Group] = {}
_VARIANTS: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}


def register_group(name: str, base: type, choices: Iterable[type], *, track: str | None = None) -> None:
    """Make dataclasses the choices of a group, or add some to a group that is there.

    The group belongs into the defaults of the tracks' train.yaml, with the choice that is taken when none is given.

    Args:
        name: of the group, with slashes where its settings lie deeper: "acceleration/noise".
        base: annotates the field of the configuration.
        choices: dataclasses derived from `base`; the default of their field `name` is the choice's name.
        track: the only track that has them; None for all tracks.

    Raises:
        ValueError: a choice without a name, of another base, or of a name that another one has.
    """
    group = _GROUPS.setdefault((name, track), Group(name, base, track))
    for node in choices:
        choice = next((field.default for field in _fields(node) if field.name == "name"), None)
        if not isinstance(choice, str) or not choice:
            raise ValueError(f"{node.__name__} needs a field `name: str` whose default names the choice.")
        if not issubclass(node, group.base):
            raise ValueError(f"{node.__name__} must derive from {group.base.__name__} to be a choice of {name}.")
        other = group.choices.get(choice, node)
        if (other.__module__, other.__qualname__) != (node.__module__, node.__qualname__):
            raise ValueError(f"{name}={choice} is {other.__module__}.{other.__qualname__}; choose another name.")
        group.choices[choice] = node


def register_variants(group: str, nodes: dict[str, dict[str, Any]], *, track: str) -> None:
    """Add choices to a group of YAML files that are made of these files: `nodes` holds, by name, a defaults list and
    settings, as a YAML file would.
    """
    _VARIANTS.setdefault((group, track), {}).update(nodes)


def variants_of(track: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The variants of a track by group and name."""
    return {group: nodes for (group, owner), nodes in _VARIANTS.items() if owner == track}


def groups_of(track: str) -> list[Group]:
    """The groups of typed choices that a track has."""
    return [group for group in _GROUPS.values() if group.track in (None, track)]


def check_names(config: DictConfig, track: str) -> None:
    """Raise UserError where the name of a choice was set without choosing it, so that its settings are another's."""
    for group in groups_of(track):
        node = OmegaConf.select(config, group.path, throw_on_missing=False)
        if node is not None and group.choices.get(node.name) is not OmegaConf.get_type(node):
            raise UserError(f"{group.path}.name={node.name} does not choose it; write {group.name}={node.name}.")


def typed(schema: type, values: dict[str, Any], track: str) -> Any:
    """Plain values, as a run recorded them, as the dataclass `schema`; the choice of each group is found by its name.

    Raises:
        ValueError: a choice that nobody registered.
        omegaconf.errors.OmegaConfBaseException: values that do not fit.
    """
    config, given = defaults_of(schema, values, track), OmegaConf.create(literal(values))
    return OmegaConf.to_object(OmegaConf.merge(config, given))


def defaults_of(schema: type, values: dict[str, Any], track: str) -> DictConfig:
    """What `typed` fills up values with: the defaults of `schema` and of the choices that the values name.

    Raises:
        ValueError: a choice that nobody registered.
    """
    config, given = OmegaConf.structured(schema), OmegaConf.create(literal(values))
    for group in groups_of(track):
        # A run from before there was a choice has no name in it; the base is what there was.
        base = next((name for name, node in group.choices.items() if node is group.base), None)
        name = OmegaConf.select(given, f"{group.path}.name", default=base)
        if name not in group.choices:
            raise ValueError(f"{group.name}={name} is unknown; {did_you_mean(str(name), group.choices)}")
        OmegaConf.update(config, group.path, OmegaConf.structured(group.choices[name]), merge=False)
    assert isinstance(config, DictConfig)
    return config


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        flat.update(flatten(value, f"{name}.") if isinstance(value, dict) and value else {name: value})
    return flat


def _fields(node: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(node)
