"""A trained policy in use: one observation in, one action out."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from policy_accel.errors import UserError, one_of
from policy_accel.evaluation.latency import LatencyMeter
from policy_accel.foreign.kinds import is_foreign
from policy_accel.policy.demonstrations import observation_layout
from policy_accel.policy.observations import as_tensors
from policy_accel.policy.planner import Planner, chunk_noise, shifted
from policy_accel.policy.run import LoadedRun
from policy_accel.policy.track import ROBOT
from policy_accel.run_files import located
from policy_accel.run_sampling import AskedSampling
from policy_accel.training.devices import choose_device
from policy_accel.training.precision import PRECISIONS, precision_on
from policy_accel.trust import admit

if TYPE_CHECKING:
    from policy_accel.robot.control.controller import Controller


class Policy:
    """Drives one environment or robot with receding horizon.

    It remembers the newest observations, predicts a chunk of actions when none is left, and hands them out one by one.
    The noise follows from (noise seed, episode seed, chunk) as in `policy-accel evaluate`, so an episode can be
    repeated.

    Args:
        run: a loaded run; `Policy.load` reads one.
        warm_start: share of the sampler's steps, in (0, 1), that a chunk takes when it starts from the rest of the one
            before instead of from noise; None always starts from noise. The first chunk always does.
        noise_seed: seed of the sampler's noise.

    Attributes:
        latency: wall time of each prediction; `latency.milliseconds()` gives median and 95th percentile. The other
            calls of `act` only take an action from the queue.
    """

    def __init__(self, run: LoadedRun, *, warm_start: float | None = None, noise_seed: int = 0) -> None:
        if warm_start is not None and not 0.0 < warm_start < 1.0:
            raise UserError(f"warm_start={warm_start} must lie between 0 and 1; leave it out to start from noise.")
        if run.policy.fixed and warm_start is not None:
            raise UserError(
                f"an exported file samples from noise, so that warm_start={warm_start} has no effect; leave it out, or "
                "load the run."
            )
        self.run, self.warm_start, self.noise_seed = run, warm_start, noise_seed
        self.device = run.policy.device
        self.layout = observation_layout(run.config.task)
        self.latency = LatencyMeter(self.device)
        self._planner = Planner(run.policy, run.sampler, run.config.training)
        self.reset()

    @classmethod
    def load(
        cls,
        run_dir: Path | str,
        *,
        checkpoint: str = "last",
        device: str = "auto",
        sampler: str | None = None,
        sampling_steps: int | None = None,
        sampling_times: Sequence[int | float] | None = None,
        spacing: str | None = None,
        untuned: bool = False,
        warm_start: float | None = None,
        noise_seed: int = 0,
        precision: str = "fp32",
        compile: bool = False,
        trust: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> Policy:
        """Load the policy of a run directory, of a folder of one of its checkpoints, of a folder that `save_pretrained`
        or LeRobot wrote, of an exported file, or of a checkpoint (.ckpt) of Diffusion Policy.

        Args:
            run_dir: made by `policy-accel train`; a folder of its checkpoints, which may be elsewhere with the run's
                config.yaml in it; or what `policy-accel export` wrote, whose sampler is fixed but for safetensors.
            checkpoint: "last", "best" (highest score during training) or a step.
            device: auto, cpu, cuda or cuda:N.
            sampler: its name; None for the run's own.
            sampling_steps: steps of the sampler; None for the run's own, or what `tune-sampling` chose for it.
            sampling_times: the times of the steps in place of their number, as `sampling.times`.
            spacing: of an even grid of steps: leading, trailing or linspace; None for the run's own.
            untuned: whether what `tune-sampling` chose is left aside.
            warm_start: see the class.
            noise_seed: see the class.
            precision: fp32, or bf16 or fp16 for matrix products and convolutions; auto is one of these on CUDA and fp32
                on the CPU, where the others are slow.
            compile: whether `warm_up` is called, and must compile.
            trust: whether the modules that the run's config.yaml names (its plugins and its environment's) are
                imported; without, nothing of a run directory runs.
            settings: of a policy of another library, by dotted key, where its files do not say them or say others:
                {"task": "pusht_image", "policy.n_action_steps": 4}.

        Raises:
            UserError: not a run directory of a policy, no such checkpoint, a damaged file, no such device, sampling
                steps or times that the process cannot take, settings that an exported file cannot follow.
        """
        asked = AskedSampling(sampler, sampling_steps, spacing, times=sampling_times, untuned=untuned)
        home, checkpoint = located(Path(run_dir), checkpoint)
        admit(home, trust=trust, environment=trust)
        where = choose_device(device, "device")
        chosen = precision_on(where, one_of("precision", precision, PRECISIONS))
        if settings:
            run = _with_settings(home, checkpoint, settings, where, asked)
        else:
            run = ROBOT.load(home, checkpoint, where, asked=asked)
        if run.policy.fixed and precision not in ("fp32", "auto"):
            raise UserError(f"{home} is computed in its own precision, and precision={precision} asks for another.")
        if run.sampling_note is not None:
            print(run.sampling_note, file=sys.stderr)
        run.policy.precision = "fp32" if run.policy.fixed else chosen
        policy = cls(run, warm_start=warm_start, noise_seed=noise_seed)
        if compile:
            policy.warm_up(strict=True)
        return policy

    @classmethod
    def from_pretrained(
        cls, source: Path | str, *, revision: str | None = None, token: str | None = None, **how: Any
    ) -> Policy:
        """Load a policy from a folder or file, or from a repository of the Hugging Face hub.

        Args:
            source: what `load` takes, or OWNER/NAME on the hub; LeRobot's diffusion policies lie there too.
            revision: branch, tag or commit on the hub.
            token: of the hub; None for that of `hf auth login`, or the variable HF_TOKEN.
            how: as for `load`.

        Raises:
            UserError: what `load` raises; no such repository, no connection, or huggingface_hub is not installed.
        """
        from policy_accel.sharing.hub import local_copy

        return cls.load(local_copy(source, revision=revision, token=token), **how)

    def save_pretrained(self, folder: Path | str, **settings: Any) -> None:
        """Write weights, config.json and a model card to a folder, from which `from_pretrained` loads the policy; see
        `policy_accel.robot.hub.save_pretrained` for settings and errors."""
        from policy_accel.robot.hub import save_pretrained

        save_pretrained(self.run, Path(folder), **settings)

    def push_to_hub(self, repo: str, **settings: Any) -> str:
        """Put the policy into the repository OWNER/NAME of the Hugging Face hub; returns the address of the commit. See
        `policy_accel.robot.hub.push_to_hub` for settings and errors."""
        from policy_accel.robot.hub import push_to_hub

        return push_to_hub(self.run, repo, **settings)

    def warm_up(self, *, strict: bool = False) -> None:
        """Make the calls ready that `act` makes, so that the first one is as quick as all others.

        On a CUDA device plans are captured as graphs. On the CPU onnxruntime compiles the networks, which takes some
        seconds and moves results by rounding; without that package, or in another precision than fp32, they stay as
        they are.

        Args:
            strict: refuse what cannot be compiled.

        Raises:
            UserError: it is strict, and a package is missing or the precision is another; a network that cannot be
                compiled.
        """
        from policy_accel.robot.exporting.compiled import warm_up

        warm_up(self._planner, self.warm_start, strict=strict)

    def reset(self, seed: int = 0) -> None:
        """Begin an episode: forget observations, actions and the last plan. `seed` is that of its noise."""
        self._seed, self._chunk = seed, 0
        self._history: deque[Mapping[str, np.ndarray]] = deque(maxlen=self.run.config.policy.n_obs_steps)
        self._actions: deque[np.ndarray] = deque()
        self._plan: Tensor | None = None

    def controller(self, rate: float, **settings: Any) -> Controller:
        """A controller of a robot, `rate` actions a second: predicts while it acts, so that no action is late.

        Args:
            rate: actions a second, as in the demonstrations.
            settings: mode="async"|"sync"|"streaming", joining, when_late and others; see
                `policy_accel.robot.control.config.ControlConfig`.

        Raises:
            UserError: settings that make no sense; a prediction that is not finite.
        """
        from policy_accel.robot.control.config import ControlConfig
        from policy_accel.robot.control.driving import controller_of

        return controller_of(self, ControlConfig(rate, **settings))

    @property
    def plan(self) -> Tensor | None:
        """The newest prediction, normalised, [1, horizon, channels]; None before the first."""
        return self._plan

    def act(self, observation: Any) -> np.ndarray:
        """The action [A] to execute now, in the data's units: float32, or float64 where that would not hold them.

        Args:
            observation: of the environment: numbers, or its dictionary of arrays, each in its own shape or flat.

        Raises:
            UserError: an observation of another size or type than the policy's, without an entry that it needs, or with
                a value that is not finite; a prediction that is not finite.
        """
        network = self.run.policy
        return self.act_on(self.layout.taken(observation, network.input_dim, network.images))

    def act_on(self, taken: Mapping[str, np.ndarray]) -> np.ndarray:
        """`act` for what `ObservationLayout.taken` gave."""
        if not self._history:
            self._history.extend([taken] * (self.run.config.policy.n_obs_steps - 1))
        self._history.append(taken)
        if not self._actions:
            with self.latency.call():
                chunk = self._predict()
            if not np.isfinite(chunk).all():
                raise UserError("the policy returned a NaN or infinite action; its weights may be damaged.")
            self._actions.extend(chunk)
        return self._actions.popleft()

    @torch.no_grad()
    def _predict(self) -> np.ndarray:
        """The next chunk of actions [n_action_steps, A]."""
        policy, sampler = self.run.policy, self.run.sampler
        noise = chunk_noise(policy.noise_shape(sampler), self.noise_seed, [self._seed], [self._chunk])
        start, strength = None, 1.0
        if self.warm_start is not None and self._plan is not None:
            start = shifted(self._plan, self.run.config.policy.n_action_steps)
            strength = self.warm_start
        observed = as_tensors([list(self._history)], self.device, policy.resized)
        trajectory = self._planner(observed, noise, start=start, strength=strength)
        self._plan = trajectory
        self._chunk += 1
        return policy.executed(trajectory)[0].cpu().numpy()


def _with_settings(
    path: Path, checkpoint: str, settings: Mapping[str, Any], device: torch.device, asked: AskedSampling
) -> LoadedRun:
    """A policy of another library with settings that its files do not say."""
    from policy_accel.foreign.opened import load_foreign

    if not path.is_file() or not is_foreign(path) or checkpoint != "last":
        raise UserError(
            f"settings={dict(settings)} are for a policy of another library, and {path} is ours; drop them."
        )
    loaded: LoadedRun = load_foreign(path, settings, device, asked)
    return loaded
