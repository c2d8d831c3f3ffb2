"""Playing the episodes that are missing, and measuring what may stand for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from policy_accel.errors import UserError
from policy_accel.parsing import read_record
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.evaluate import PolicyEvaluator
from policy_accel.policy.run import LoadedRun
from policy_accel.policy.task import ChunkTask
from policy_accel.policy.track import ROBOT
from policy_accel.run_sampling import AS_TRAINED
from policy_accel.time_to_score.plan import ScoringPlan, SurrogatePlan
from policy_accel.time_to_score.records import Records, Scored
from policy_accel.time_to_score.surrogates import surrogates, with_steps
from policy_accel.training.devices import choose_device, use_device

Report = Callable[[str], None]


class RunScorer:
    """Scores the checkpoints of a run, where the records do not have it yet.

    Args:
        name: of the run.
        run_dir: its directory.
        config: its configuration.
        scoring: which episodes.
        records: what is known, and is added to.
        report: takes a line for the user.
    """

    def __init__(
        self, name: str, run_dir: Path, config: RobotConfig, scoring: ScoringPlan, records: Records, report: Report
    ) -> None:
        self.name, self.run_dir, self.config, self.scoring = name, run_dir, config, scoring
        self.records, self.report = records, report
        self._evaluators: dict[int | None, PolicyEvaluator] = {}
        self._loaded: LoadedRun | None = None
        self._task: ChunkTask | None = None
        self.device = choose_device(config.training.device)
        use_device(
            self.device,
            threads=config.training.threads,
            matmul_precision=config.training.matmul_precision,
        )

    def scores(self, step: int, count: int, *, start_seed: int | None = None, steps: int | None = None) -> np.ndarray:
        """Scores [count] of the checkpoint of `step`, in the order of the seeds; missing episodes are played.

        Args:
            step: updates of the checkpoint.
            count: episodes.
            start_seed: of them; None for that of the plan.
            steps: of the sampler; None for the run's own.
        """
        rows = self.episodes(step, count, start_seed=start_seed, steps=steps)
        return np.array([row["score"] for row in rows], dtype=np.float64)

    def episodes(
        self, step: int, count: int, *, start_seed: int | None = None, steps: int | None = None
    ) -> list[dict[str, Any]]:
        """The same episodes, each as in evaluation.json."""
        first = self.scoring.start_seed if start_seed is None else start_seed
        key = Scored(self.name, step, steps, self.scoring.noise_seed)
        self.records.check_weights(self.name, step, self._weights(step))
        known = self.records.episodes(key)
        missing = [seed for seed in range(first, first + count) if seed not in known]
        while missing:
            part = missing[: next((n for n, seed in enumerate(missing) if seed != missing[0] + n), len(missing))]
            part = part[: self.scoring.batch]
            self._play(key, part)
            missing = missing[len(part) :]
        known = self.records.episodes(key)
        return [known[seed] for seed in range(first, first + count)]

    def surrogates(self, step: int, plan: SurrogatePlan) -> dict[str, float]:
        """What stands for the score of the checkpoint of `step`."""
        how = {"windows": plan.windows, "noises": plan.noises, "noise_seed": self.scoring.noise_seed}
        self.records.check_weights(self.name, step, self._weights(step))
        known = self.records.surrogates(self.name, step, **how)
        if known is None:
            self.report(f"surrogates: {self.name}, {step} updates")
            known = surrogates(self._load(step), self._held_out(), **how)
            row = {"run": self.name, "step": step, "weights": self._weights(step), **how}
            self.records.add({**row, "surrogates": known})
        return known

    def close(self) -> None:
        """End the processes of the environments."""
        for evaluator in self._evaluators.values():
            evaluator.close()

    def _held_out(self) -> ChunkTask:
        """The task of the run, with its held-out windows."""
        if self._task is None:
            self._task = ROBOT.build(self.config)
            self._task.to(self.device)
            if not self._task.validation_samples:
                raise UserError(
                    f"run {self.name}: task.val_ratio={self.config.task.val_ratio} holds no demonstration out that "
                    "surrogates could be measured on; raise it, or set surrogates.windows to 0."
                )
        return self._task

    def _play(self, key: Scored, seeds: list[int]) -> None:
        loaded = self._load(key.step)
        evaluation = dataclasses.replace(
            self.config.evaluation,
            episodes=len(seeds),
            start_seed=seeds[0],
            noise_seed=key.noise_seed,
            workers=self.scoring.workers,
            videos=0,
            camera=None,
        )
        if key.steps not in self._evaluators:
            config = dataclasses.replace(with_steps(loaded.config, key.steps), evaluation=evaluation)
            self._evaluators[key.steps] = PolicyEvaluator(config, loaded.policy, self.run_dir, loaded.env_args)
        evaluator = self._evaluators[key.steps]
        evaluator.config = evaluation
        result = evaluator(loaded.policy, self.report)
        sampled = "" if key.steps is None else f", {key.steps} steps of the sampler"
        self.report(
            f"scores: {self.name}, {key.step} updates{sampled}: {result['score']:.3f} in {len(seeds)} episodes from "
            f"{seeds[0]}"
        )
        self.records.add(
            {
                "run": key.run,
                "step": key.step,
                "weights": self._weights(key.step),
                "sampling_steps": key.steps,
                "noise_seed": key.noise_seed,
                "network_evaluations": result["network_evaluations"],
                "seconds": result["seconds"],
                "episodes": result["episodes"],
            }
        )

    def _load(self, step: int) -> LoadedRun:
        if self._loaded is None or self._loaded.step != step:
            self._loaded = ROBOT.load(self.run_dir, str(step), self.device, asked=AS_TRAINED)
        return self._loaded

    def _weights(self, step: int) -> str:
        """SHA-256 of the averaged weights of a checkpoint, as its state.json has it."""
        path = self.run_dir / "checkpoints" / f"{step:08d}" / "state.json"
        state = read_record(path, "train the run anew")
        try:
            return str(state["files"]["ema.safetensors"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({type(error).__name__}); train the run anew.") from error
