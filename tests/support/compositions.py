"""Configurations that are composed once for all tests that ask for the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import IO, Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

BY_HYDRA = ConfigLoaderImpl._load_configuration_impl


def composed_once(compose: Callable[[list[str]], Any]) -> Callable[[list[str]], Any]:
    """`compose` whose results are kept, since Hydra takes 0.2 s for each; a call gets a copy for its own run_dir."""
    kept: dict[tuple[str, ...], Any] = {}

    def composed(overrides: list[str]) -> Any:
        *_, place = ["", *(override for override in overrides if override.startswith("run_dir="))]
        others = [override for override in overrides if not override.startswith("run_dir=")]
        if "$" in place:  # made of other settings
            return compose([*others, place])
        key = tuple(others)
        if key not in kept:
            kept[key] = compose(others)
        config = deepcopy(kept[key])
        config.run_dir = place.removeprefix("run_dir=") or config.run_dir
        return config

    return composed


@contextmanager
def quick_compositions() -> Iterator[None]:
    """Hydra hears of each choice once, and puts together once what the same choices give.

    A composition takes 0.15 s, and most differ in settings alone; these are set on a copy, by Hydra's own function.
    """
    store, told = ConfigStore.store, dict[Any, tuple[Any, Any]]()
    known: dict[Any, DictConfig] = {}

    def store_new(
        self: ConfigStore, name: str, node: Any, group: str | None = None, *args: Any, **options: Any
    ) -> None:
        before, repository = told.get((group, name), (None, None))
        if before is not node or repository is not self.repo:
            known.clear()
            store(self, name, node, group, *args, **options)
            told[group, name] = node, self.repo

    def compose_new(
        self: ConfigLoaderImpl, config_name: str, overrides: list[str], run_mode: RunMode, from_shell: bool, **_: Any
    ) -> DictConfig:
        parsed, repository = self._parse_overrides_and_create_caching_repo(config_name, overrides)
        self.validate_sweep_overrides_legal(parsed, run_mode, from_shell)
        choices, settings = [], []
        for override in parsed:
            chooses = override.is_hydra_override() or repository.group_exists(override.key_or_group)
            (choices if chooses else settings).append(override)
        lines = [override.input_line for override in choices]
        key = (str(self.config_search_path), config_name, *lines)
        if key not in known:
            config = BY_HYDRA(self, config_name, lines, run_mode, from_shell)
            with open_dict(config):
                del config["hydra"]
            known[key] = config
        config = deepcopy(known[key])
        self._apply_overrides_to_config(settings, config)
        return config

    schemas: dict[type, Any] = {}
    files: dict[str, Any] = {}
    structured, load = OmegaConf.structured, OmegaConf.load

    def structured_once(node: Any, *others: Any, **settings: Any) -> Any:
        if others or settings or not isinstance(node, type):
            return structured(node, *others, **settings)
        if node not in schemas:
            schemas[node] = structured(node)
        return deepcopy(schemas[node])

    def load_once(file: IO[str] | str | Path) -> Any:
        text = Path(file).read_text() if isinstance(file, str | Path) else file.read()
        if text not in files:
            files[text] = load(StringIO(text))
        return deepcopy(files[text])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", staticmethod(load_once))  # half of a composition is the parsing of YAML
        patch.setattr(OmegaConf, "structured", staticmethod(structured_once))  # a run's schema takes 20 ms
        patch.setattr(ConfigStore, "__deepcopy__", lambda self, _: self, raising=False)  # nobody changes the copies
        patch.setattr(ConfigStore, "store", store_new)
        patch.setattr(ConfigLoaderImpl, "_load_configuration_impl", compose_new)
        yield
