"""A track: one kind of model that the training core trains, from its settings to its score."""

from __future__ import annotations

import argparse
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar, Generic, TypeVar

import torch
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from policy_accel.configuration import Source, choices, compose_config, plain
from policy_accel.errors import UserError, one_of
from policy_accel.groups import defaults_of, register_group, typed
from policy_accel.models import ModelConfig, denoiser_configs
from policy_accel.plugins import import_plugins, named_plugins
from policy_accel.run_files import read_config, record_of
from policy_accel.run_sampling import AS_CHOSEN, AskedSampling
from policy_accel.scoring import Order, Score, ScoringProcess, serve
from policy_accel.training.config import RunConfig
from policy_accel.training.devices import choose_device, use_device
from policy_accel.training.loop import Trained, train
from policy_accel.training.ranks import ALONE, Ranks, joined
from policy_accel.training.run_directory import check_run_directory, read_typed_config
from policy_accel.training.task import Task
from policy_accel.typed_values import check_finite, given_twice
from policy_accel.user_files import chosen, user_files

RECOMMENDED = "recommended"
HOMES = {"robot": "policy_accel.policy.track:ROBOT", "images": "policy_accel.images.track:IMAGES"}

Report = Callable[[str], None]
C = TypeVar("C", bound=RunConfig)
T = TypeVar("T")


@dataclass(frozen=True)
class Recommendation:
    """A method by name, why it is taken, and the record of this project that says so."""

    method: str
    because: str
    record: str


class Track(ABC, Generic[C]):
    """From settings to a trained model and its score.

    Attributes:
        source: the name of the track and where its YAML files lie.
        schema: the dataclass of all settings of a run.
        demo: the recipe of its demo.
    """

    source: ClassVar[Source]
    demo: ClassVar[str]
    schema: type[C]

    @property
    def name(self) -> str:
        """Of the track, as in `track: NAME` of a recorded configuration."""
        return self.source.track

    def choices(self) -> dict[str, list[str]]:
        """The configuration groups of the track and what each offers."""
        self.register()
        return choices(self.source)

    def config(self, overrides: Sequence[str], config_dir: Path | None = None, report: Report = lambda _: None) -> C:
        """The typed configuration for overrides such as "training.steps=100"; see `compose_config`.

        `method=recommended` becomes the method that `recommend` names, and `report` is told which and why, and of keys
        that are given twice.
        """
        config = self._composed(overrides, config_dir)
        for line in given_twice(overrides):
            report(line)
        if config.method != RECOMMENDED:
            return config
        found = self.recommend(config)
        report(f"method=recommended: {found.method}, since {found.because} ({found.record})")
        kept = [override for override in overrides if not override.startswith("method=")]
        return self._composed([*kept, f"method={found.method}"], config_dir)

    def _composed(self, overrides: Sequence[str], config_dir: Path | None) -> C:
        named, files = user_files(overrides, config_dir)
        import_plugins(named_plugins(named, (file.settings for file in chosen(files, named))))
        self.register()
        config = OmegaConf.to_object(compose_config(self.source, overrides, config_dir))
        assert isinstance(config, self.schema)
        check_finite(config)
        return config

    def record(self, config: C) -> dict[str, Any]:
        """The configuration as plain values, as it is kept in a run directory."""
        return plain(OmegaConf.structured(config), resolve=False)  # the values are, and may hold "${"

    def read(self, run_dir: Path) -> C:
        """The configuration of a run.

        Raises:
            UserError: not a run directory, or not one of this track.
        """
        recorded = track_of_run(run_dir)
        if recorded is not self:
            raise UserError(f"{run_dir} is a run of {recorded.source.trains}; give one of {self.source.trains}.")
        import_plugins(())
        self.register()
        config = read_typed_config(run_dir, self.schema, self.name)
        assert isinstance(config, self.schema)
        return config

    def typed(self, values: dict[str, Any]) -> C:
        """The configuration that `record` made plain values of.

        Raises:
            UserError: a choice that nobody has registered in this process.
        """
        self.register()
        try:
            config = typed(self.schema, values, self.name)
        except ValueError as error:
            raise UserError(f"{error}; name the module that registers it with plugins=[my_module].") from error
        assert isinstance(config, self.schema)
        return config

    def register(self) -> None:
        """Make the settings of the track known to Hydra."""
        ConfigStore.instance().store(name=self.name, node=self.schema, provider="policy_accel")
        register_group("model", ModelConfig, denoiser_configs(self.name).values(), track=self.name)

    def train(
        self,
        config: C,
        after_update: Callable[[int], None] | None = None,
        *,
        begins: Callable[[], None] = lambda: None,
        page: Callable[[Trained], Path | None] | None = None,
    ) -> Trained:
        """Train the model of `config` in its run directory, or continue it, and score it.

        Args:
            config: of the run.
            after_update: called with the number of updates made after each one.
            begins: called when the data are read and the network is built.
            page: writes the report of the finished run, which goes to Weights & Biases with it.
        """
        record, device, scorer = self.record(config), choose_device(config.training.device), None
        defaults = plain(defaults_of(self.schema, record, self.name), resolve=False)

        def build() -> Task:
            self.check(config)
            self.check_here(config)
            check_run_directory(Path(config.run_dir), record, defaults)
            return self.build(config, scored=True, ranks=ranks)

        with joined(device) as ranks:
            task = ranks.together(build)
            begins()
            if record["evaluation"]["overlap"]:
                threads = config.training.threads or torch.get_num_threads()
                scorer = ScoringProcess(self.name, record, device, threads)
            try:
                return train(
                    task,
                    config.training,
                    seed=config.seed,
                    run_dir=Path(config.run_dir),
                    run_config=record,
                    after_update=after_update,
                    scorer=scorer,
                    ranks=ranks,
                    page=page,
                    defaults=defaults,
                )
            finally:
                task.close()

    @abstractmethod
    def recommend(self, config: C) -> Recommendation:
        """The method that our own measurements support for the task of `config` and how it is sampled.

        Raises:
            UserError: what reading the data raises, where they decide.
        """

    @abstractmethod
    def check(self, config: C) -> None:
        """Raise UserError for everything that can be refused without the data."""

    def check_here(self, config: C) -> None:
        """Raise UserError for what this machine lacks to train, but for the data: packages, the environment."""
        config.training.logging.check_installed()

    @abstractmethod
    def check_data(self, config: C) -> None:
        """Raise UserError when the data of `config.task` are not there, or lack what the task names; reads little."""

    @abstractmethod
    def check_weights(self, config: C) -> None:
        """Raise UserError when the weights that a run of `config` begins with are not there, or damaged."""

    @abstractmethod
    def build(self, config: C, *, scored: bool = False, ranks: Ranks = ALONE) -> Task:
        """Data, model and, where it is to be scored, the evaluator, in this order, for the training core.

        `ranks` share the work of the evaluator.

        Raises:
            UserError: settings that do not go together, or do not fit the data.
        """

    @abstractmethod
    def load(
        self,
        run_dir: Path,
        checkpoint: str = "last",
        device: torch.device | str = "cpu",
        *,
        asked: AskedSampling = AS_CHOSEN,
    ) -> Any:
        """The trained model of a run, in eval mode, with its configuration and what it takes to use it.

        Args:
            run_dir: made by `train`.
            checkpoint: "last", "best" (highest score during training) or a step.
            device: where the model goes.
            asked: how it is sampled.

        Raises:
            UserError: not a run directory of this track, no such checkpoint, a damaged file.
        """

    @abstractmethod
    def scorer(self, config: C, device: torch.device) -> Score:
        """What scores checkpoints of the run of `config`, by step, with the settings and the results of the training.

        It gives what `Task.evaluate` of the same weights gives, which are read from the run directory.
        """

    @abstractmethod
    def evaluate(
        self, run_dir: Path, options: argparse.Namespace, report: Report, ranks: Ranks = ALONE
    ) -> dict[str, Any]:
        """Score a checkpoint of a run as `policy-accel evaluate` does: a JSON-able result.

        Args:
            run_dir: made by `train`.
            options: the arguments of the command.
            report: takes a line for the user.
            ranks: the processes that do it together.
        """

    def unscored(self, config: C, report: Report) -> dict[str, Any] | None:
        """What can be measured of the finished run of `config`, which has no score: a JSON-able result, of which
        `report` is told; None where nothing can be."""
        return None

    @abstractmethod
    def describe(self, result: dict[str, Any]) -> str:
        """What a score says."""


def track(name: str) -> Track[Any]:
    """The track "robot" or "images"; its modules are imported when it is asked for.

    Raises:
        UserError: there is none of that name.
    """
    found = resolve_name(HOMES[one_of("track", name, HOMES)])
    assert isinstance(found, Track)
    return found


def track_of_run(run_dir: Path) -> Track[Any]:
    """The track that a run belongs to.

    Raises:
        UserError: not a run directory, or one of an earlier version.
    """
    values = read_config(run_dir)
    if "track" not in values:
        raise UserError(f"{record_of(run_dir)} names no track: it is of an earlier version; train the run again.")
    return track(str(values["track"]))


def run_scorer() -> None:
    """The process of a `ScoringProcess`."""
    serve(_scorer)


def _scorer(order: Order) -> Score:
    import_plugins(order.plugins)
    chosen, device = track(order.track), torch.device(order.device)
    config = chosen.typed(order.config)
    use_device(device, threads=order.threads, matmul_precision=config.training.matmul_precision)
    return chosen.scorer(config, device)


def replaced(settings: T, **given: Any) -> T:
    """The dataclass `settings` with those of the given values that are not None."""
    return dataclasses.replace(settings, **{name: value for name, value in given.items() if value is not None})  # type: ignore[type-var]


def best_average(results: Sequence[dict[str, Any]], report: Report) -> dict[str, Any]:
    """The result with the highest score, of averages of the same weights; where there are several it holds the scores
    of all as "averages", and the user is told how the best one was chosen."""
    best = max(results, key=lambda result: float(result["score"]))
    if len(results) == 1:
        return best
    report(f"The best average is {best['average']}: chosen by these very scores, so quote it with another --seed.")
    return {**best, "averages": {result["average"]: result["score"] for result in results}}
