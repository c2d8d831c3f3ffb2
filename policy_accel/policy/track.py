"""The robot track: policies, trained on demonstrations and scored in rollouts."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policy_accel.configuration import SOURCES
from policy_accel.distill import teach
from policy_accel.errors import UserError
from policy_accel.evaluation.environments import import_environment
from policy_accel.evaluation.statistics import EXPLANATION, missing_seeds, selection_bias
from policy_accel.foreign.kinds import is_foreign
from policy_accel.models.encoders.pretrained import read_weights
from policy_accel.policy.config import EvaluationConfig, RobotConfig
from policy_accel.policy.demonstrations import load_demonstrations
from policy_accel.policy.evaluate import PolicyEvaluator, environment_spec
from policy_accel.policy.heading import robot_heading, score_heading
from policy_accel.policy.recommend import recommend
from policy_accel.policy.run import LoadedRun, build_policy, build_sampler, check_config, fit_bound
from policy_accel.policy.task import ChunkTask
from policy_accel.policy.task_data import check_task_data
from policy_accel.run_files import checkpoint_steps, read_metrics, results_folder
from policy_accel.run_sampling import AS_CHOSEN, AS_TRAINED, TUNED, AskedSampling, TunedSampling
from policy_accel.scoring import Score
from policy_accel.track import Recommendation, Report, Track, best_average, replaced
from policy_accel.training.averages import MAIN, asked_averages, load_average, refuse_choice
from policy_accel.training.checkpoint import Checkpoint, best_checkpoint, evaluation_of, fitting
from policy_accel.training.devices import choose_device, use_device
from policy_accel.training.first_weights import begin_with, first_checkpoint, told
from policy_accel.training.ranks import ALONE, Ranks


class RobotTrack(Track[RobotConfig]):
    """See `Track`."""

    source = SOURCES["robot"]
    demo = "demo"
    schema = RobotConfig

    def recommend(self, config: RobotConfig) -> Recommendation:
        """See `Track.recommend`."""
        return recommend(config, lambda: self.build(config))

    def check(self, config: RobotConfig) -> None:
        """See `Track.check`."""
        config.training.check()
        check_config(config)

    def check_here(self, config: RobotConfig) -> None:
        """See `Track.check_here`; also that the environment is registered and its simulator there."""
        super().check_here(config)
        if config.is_scored():
            alone = dataclasses.replace(config.task, environment_from_data=False)
            import_environment(environment_spec(alone, config.policy.n_obs_steps, None, None))

    def check_data(self, config: RobotConfig) -> None:
        """See `Track.check_data`."""
        check_task_data(config.task)

    def check_weights(self, config: RobotConfig) -> None:
        """See `Track.check_weights`."""
        _first_weights(config)
        first_checkpoint(config, self._from_file)

    def build(self, config: RobotConfig, *, scored: bool = False, ranks: Ranks = ALONE) -> ChunkTask:
        """See `Track.build`."""
        if config.encoder.crop_width is not None:
            raise UserError(
                f"encoder.crop_width={config.encoder.crop_width} is of a policy of another library, and training cuts "
                "out squares; set it to null."
            )
        objective = check_config(config)
        weights, begun = _first_weights(config), first_checkpoint(config, self._from_file)
        demonstrations = load_demonstrations(config.task, config.policy, config.encoder)
        images = demonstrations.images
        policy = build_policy(
            config,
            demonstrations.observations.shape[1],
            demonstrations.actions.shape[1],
            images=None if images is None else images.recorded,
            resized=None if images is None else images.resized,
            goal_columns=demonstrations.goal_columns,
        )
        if weights is not None and policy.encoder is not None:
            policy.encoder.begin_with(weights)
        if begun is not None:
            begin_with(policy, begun, config, self.record(config))
        keeps = begun is not None and config.init_normalizer == "keep"
        modes = config.task.observation_normalization, config.task.action_normalization
        task = ChunkTask(
            policy,
            objective,
            demonstrations,
            normalization=None if keeps else modes,
            mask_padding=config.task.mask_padding,
            noise=config.acceleration.noise,
            seed=config.seed,
            crop=config.encoder.crop,
            augmentation=config.encoder.augmentation,
        )
        bound = fit_bound(config, task.largest())
        if bound is not None:
            task.description = {**task.description, "clip_sample": config.sampling.clip_sample}
        task.heading = {**robot_heading(config, policy, demonstrations.heading), "bound": bound or ""}
        if begun is not None:
            kept = f", its normalisers {'kept' if keeps else 'fitted anew'}"
            task.heading = {**task.heading, "begins": told(begun, config, self.record(config), kept)}
        teach(self, config, task, build_sampler(config))
        if scored and config.is_scored():
            env_args, action_range = demonstrations.metadata.get("env_args"), demonstrations.action_range
            run_dir = Path(config.run_dir)
            task.evaluator = PolicyEvaluator(config, policy, run_dir, env_args, action_range=action_range, ranks=ranks)
            score = score_heading(config, task.evaluator.pool.spec)
            unseen = task.evaluator.not_filmed if config.evaluation.videos else None
            task.heading = {**task.heading, "score": score, "not filmed": unseen or ""}
        return task

    def load(
        self,
        run_dir: Path,
        checkpoint: str = "last",
        device: torch.device | str = "cpu",
        average: str = MAIN,
        *,
        asked: AskedSampling = AS_CHOSEN,
    ) -> LoadedRun:
        """See `Track.load`; the weights are averaged ones (EMA), also others than the main ones, see `load_average`. It
        is sampled as `asked`. `run_dir` may be a file that `policy-accel export` or another library wrote."""
        config = self.read(run_dir)
        if run_dir.is_file():
            refuse_choice(run_dir, checkpoint, average)
            if is_foreign(run_dir):
                from policy_accel.foreign.opened import load_foreign

                loaded: LoadedRun = load_foreign(run_dir, device=device, asked=asked)
                return loaded
            from policy_accel.robot.exporting.exported import load_exported

            return load_exported(run_dir, config, device, asked)
        tuned = None if asked.untuned else TunedSampling.read(run_dir)
        config.sampling, how = asked.of_run(config.sampling, tuned)
        try:
            sampler = build_sampler(config)
        except UserError as error:
            if how is None:
                raise
            raise UserError(f"{run_dir / TUNED} does not fit the run, remove it or use --untuned: {error}") from error
        saved = load_average(run_dir, checkpoint, average)
        tensors = saved.tensors[MAIN]
        with fitting(saved.path):
            data = dict(saved.state.get("task") or {})
            if "clip_sample" in data:  # which the data decided, see `fit_bound`
                config.sampling = dataclasses.replace(config.sampling, clip_sample=data["clip_sample"])
                sampler = dataclasses.replace(sampler, config=config.sampling)
            policy = build_policy(
                config,
                tensors["observation_normalizer.scale"].shape[0],
                tensors["action_normalizer.scale"].shape[0],
                images=data.get("images"),
                resized=data.get("resized"),
                goal_columns=data.get("goal_columns", ()),
            )
            policy.load_state_dict(tensors)
        config.training.lay_out(policy, device)
        policy.eval().requires_grad_(False)
        return LoadedRun(policy, config, saved.step, sampler, data.get("env_args"), how, run_dir)

    def _from_file(self, path: Path) -> Checkpoint:
        """The weights of a policy that is one file, as its run's checkpoint would have them."""
        loaded = self.load(path)
        if loaded.policy.fixed:
            raise UserError(f"{path} has its network as a program, without weights to begin with; give its run.")
        return Checkpoint(loaded.step, path, {MAIN: dict(loaded.policy.state_dict())}, {})

    def scorer(self, config: RobotConfig, device: torch.device) -> Score:
        """See `Track.scorer`."""
        run_dir, evaluators = Path(config.run_dir), list[PolicyEvaluator]()

        def score(step: int, report: Report) -> dict[str, Any]:
            loaded = self.load(run_dir, str(step), device, asked=AS_TRAINED)
            if not evaluators:
                own = dataclasses.replace(config, sampling=loaded.config.sampling)
                evaluators.append(PolicyEvaluator(own, loaded.policy, run_dir, loaded.env_args))
            return evaluators[0](loaded.policy, report)

        return score

    def evaluate(
        self, run_dir: Path, options: argparse.Namespace, report: Report, ranks: Ranks = ALONE
    ) -> dict[str, Any]:
        """See `Track.evaluate`; one average of the weights is scored, or all of them, and the best is the result. With
        --data, or for a task without an environment, it is the result of the open-loop check."""
        from policy_accel.open_loop.check import open_loop  # which is above this room
        from policy_accel.open_loop.options import asked_open_loop

        demonstrations = asked_open_loop(options, self.read(run_dir).task)
        if demonstrations is not None and run_dir.is_file():
            raise UserError(f"{run_dir} does not say what trained it; measure the run that it was exported from.")
        if demonstrations is not None:
            how: dict[str, Any] = {"checkpoint": options.checkpoint, "average": options.average or MAIN}
            how |= {"asked": AskedSampling.of(options), "device": options.device}
            return open_loop(run_dir, demonstrations, report, **how)
        device, evaluator_of = choose_device(options.device, "--device"), _evaluator(options)
        asked = AskedSampling.of(options)
        exported = run_dir.is_file()
        if exported and options.fresh:
            raise UserError(f"--fresh compares with the seeds of a training, which {run_dir} does not have; drop it.")
        names = [options.average or MAIN]
        if not exported:
            names = asked_averages(run_dir, options.checkpoint, options.average)
        runs = [self.load(run_dir, options.checkpoint, device, name, asked=asked) for name in names]
        loaded = runs[0]
        config = loaded.config
        use_device(device, threads=config.training.threads, matmul_precision=config.training.matmul_precision)
        if loaded.sampling_note is not None:
            report(loaded.sampling_note)
        choice = None if exported else _choice(run_dir, loaded.step, options, config.evaluation, report)
        config.evaluation = replaced(
            config.evaluation,
            episodes=options.episodes,
            start_seed=options.seed,
            noise_seed=options.noise_seed,
            workers=options.workers,
            videos=options.videos,
            camera=options.camera,
        )
        config.evaluation.check()
        if not config.is_scored():
            raise UserError(f"{run_dir} cannot be scored with --episodes 0; give 1 or more.")
        home = results_folder(run_dir)
        evaluator = evaluator_of(config, loaded.policy, home, loaded.env_args, start=True, ranks=ranks)
        try:
            if evaluator.not_filmed and (options.camera or options.videos):
                given, remedy = f"--videos {options.videos}", "give --videos 0"
                if options.camera:
                    given, remedy = f"--camera {options.camera}", "drop it"
                raise UserError(f"{given} films nothing, since {evaluator.not_filmed}; {remedy}.")
            if evaluator.not_filmed and config.evaluation.videos:
                report(f"not filmed: {evaluator.not_filmed}")
            results = []
            for name, run in zip(names, runs, strict=True):
                scored = {"task": config.task.name, "step": run.step, "average": name, **evaluator(run.policy, report)}
                report(f"{name}: {self.describe(scored)}" if len(names) > 1 else self.describe(scored))
                results.append(scored)
                evaluator.config = dataclasses.replace(evaluator.config, videos=0)  # the films are of the first
            result = best_average(results, report)
            loaded = runs[names.index(result["average"])]
            if choice is not None:
                seeds, why = choice
                start, episodes = result["start_seed"], result["episodes"]
                missing = missing_seeds(range(start, start + len(episodes)), seeds)
                more: dict[str, Any] = {"episodes": [], "seconds": 0.0}
                if missing:
                    evaluator.config = dataclasses.replace(
                        evaluator.config, start_seed=missing.start, episodes=len(missing), videos=0
                    )
                    more = evaluator(loaded.policy, report)
                result["selection_bias"] = {
                    **selection_bias([*episodes, *more["episodes"]], seeds, confidence=result["confidence"]),
                    **why,
                    "more_episodes": more["episodes"],
                    "seconds": more["seconds"],
                }
                report(_selection(result["selection_bias"]))
        finally:
            evaluator.close()
        return result

    def unscored(self, config: RobotConfig, report: Report) -> dict[str, Any] | None:
        """See `Track.unscored`: the open-loop check of a task without an environment, on the run's validation
        episodes."""
        if config.task.environment is not None:
            return None
        from policy_accel.open_loop.check import OpenLoopConfig, open_loop

        return open_loop(
            Path(config.run_dir), OpenLoopConfig(), report, asked=AS_TRAINED, device=config.training.device
        )

    def describe(self, result: dict[str, Any]) -> str:
        """Score, success and their intervals in one line."""
        low, high = result["score_interval"]
        success_low, success_high = result["success_interval"]
        episodes = len(result["episodes"])
        source = f" by {result['success_from']}" if "success_from" in result else ""  # not where all episodes failed
        metrics = "".join(f"{name} {value:.3g}, " for name, value in result.get("metrics", {}).items())
        return (
            f"Score {result['score']:.3f} by {result['score_from']} ({result['confidence']:.0%} interval {low:.3f} to "
            f"{high:.3f}), success {result['success_rate']:.0%}{source} ({success_low:.0%} to {success_high:.0%}), "
            f"{metrics}over {episodes} episodes from seed {result['start_seed']}, "
            f"{result['sampler']} with {result['network_evaluations']} evaluations a chunk{_late(result)}."
        )


def _evaluator(options: argparse.Namespace) -> Callable[..., PolicyEvaluator]:
    """The kind of evaluator that is asked for: one whose simulator waits for the policy, or not."""
    from policy_accel.robot.control.evaluate import (  # the room of robots is above this one
        DelayedEvaluator,
        asked_delay,
    )

    delay = asked_delay(options)
    return PolicyEvaluator if delay is None else partial(DelayedEvaluator, delay=delay)


def _late(result: dict[str, Any]) -> str:
    if "control" not in result:
        return ""
    how = result["control"]
    return (
        f", each {how['delay_ms']:g} ms late at {how['rate']:g} Hz ({how['mode']}, {how['joining']}): "
        f"{result['late_calls']} of {result['calls']} actions not there in time"
    )


def _first_weights(config: RobotConfig) -> dict[str, Tensor] | None:
    """What the encoder begins with, if that is in a file; a run that goes on has its weights in its checkpoints, one
    that is fine-tuned in those of the other, and a student begins as its teacher."""
    begun = config.distillation.teacher or config.init_from or checkpoint_steps(Path(config.run_dir) / "checkpoints")
    if config.encoder.weights is None or begun:
        return None
    return read_weights(config.encoder.weights)


def _choice(
    run_dir: Path, step: int, options: argparse.Namespace, trained: EvaluationConfig, report: Report
) -> tuple[range, dict[str, Any]] | None:
    """The seeds on which checkpoints were compared during training (those of the settings `trained`), and how that of
    `step` came to be chosen; None where nothing was chosen by score and --fresh was not given."""
    folder = run_dir / "checkpoints"
    best = best_checkpoint(folder)
    candidates = len({row.get("step") for row in read_metrics(run_dir / "metrics.jsonl") if "score" in row})
    by_score = options.checkpoint != "last" and best == folder / f"{step:08d}" and candidates > 1
    if options.checkpoint == "best" and not by_score:
        report(
            "One checkpoint was scored during training, so none was chosen by its score: there is no selection bias."
        )
    if not by_score and not options.fresh:
        return None
    if trained.episodes == 0:
        raise UserError(
            f"--fresh has no seeds to compare with: {run_dir} was trained with evaluation.episodes=0; drop it."
        )
    recorded = evaluation_of(folder / f"{step:08d}") or {}
    # The settings may be others by now than when that checkpoint was scored.
    start, count = recorded.get("start_seed", trained.start_seed), len(recorded.get("episodes", ())) or trained.episodes
    seeds = range(start, start + count)
    return seeds, {"candidates": candidates, "chosen_by_score": by_score, "recorded_score": recorded.get("score")}


def _selection(bias: dict[str, Any]) -> str:
    """The score on the seeds that chose a checkpoint, on fresh ones and the difference, and what that means."""
    low, high = bias["difference_interval"]
    chosen, fresh = (_group(bias[name]) for name in ("chosen", "fresh"))
    if bias["chosen_by_score"]:
        seeds, why = "that chose it", f"This checkpoint has the best of {bias['candidates']} scores during training"
    else:
        seeds, why = "of the training", "This checkpoint was not chosen for its score"
    return (
        f"{why}: {chosen} on the seeds {seeds}, {fresh} on fresh ones, "
        f"difference {bias['difference']:+.3f} ({bias['confidence']:.0%} interval {low:+.3f} to {high:+.3f}).\n"
        f"{EXPLANATION} Quote the score on fresh seeds."
    )


def _group(group: dict[str, Any]) -> str:
    low, high = group["score_interval"]
    return f"score {group['score']:.3f} ({low:.3f} to {high:.3f}; {group['episodes']} from {group['start_seed']})"


ROBOT = RobotTrack()
