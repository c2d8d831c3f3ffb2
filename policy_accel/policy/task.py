"""The robot track's task: windows of demonstrations for the training core, rollouts for the score."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policy_accel.acceleration.assigned_noise import GroupedAssignmentConfig
from policy_accel.acceleration.conditional import ConditionalMean, kmeans_groups, ridge_mean
from policy_accel.acceleration.noise_choices import NoiseConfig
from policy_accel.diffusion import Batch, Objective
from policy_accel.diffusion.batch import Condition
from policy_accel.diffusion.host_work import to_device
from policy_accel.errors import UserError, naming
from policy_accel.models.denoiser import Denoiser
from policy_accel.models.encoders import Augmentation, AugmentationConfig
from policy_accel.models.encoders.observation import STATE
from policy_accel.policy.actions import fit_action_normalizer
from policy_accel.policy.demonstrations import Demonstrations
from policy_accel.policy.evaluate import PolicyEvaluator
from policy_accel.policy.observations import fit_observation_normalizer
from policy_accel.policy.policy import DiffusionPolicy
from policy_accel.policy.windows import Windows
from policy_accel.training.checkpoint import Checkpoint
from policy_accel.training.self_consistency import lesson_of
from policy_accel.training.task import NOTHING, Draws, Task


@contextmanager
def _of(fields: str) -> Iterator[None]:
    """Begin what is raised of a normaliser with the setting that names the data."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error) if str(error).startswith("task.") else f"{fields}: {error}") from error


def _fit_normalizers(
    policy: DiffusionPolicy, demonstrations: Demonstrations, observation_mode: str, action_mode: str
) -> None:
    with _of("task.observation"):
        policy.observation_normalizer = fit_observation_normalizer(
            demonstrations.observations,
            observation_mode,
            demonstrations.quaternions,
            demonstrations.observation_precision,
        )
    with _of("task.action"):
        policy.action_normalizer = fit_action_normalizer(
            demonstrations.actions, action_mode, policy.action_rotation, demonstrations.action_precision
        )


def _check_kept(policy: DiffusionPolicy, demonstrations: Demonstrations) -> None:
    """Raise UserError where the kept normaliser of the actions leaves a number at one value, and the data move it."""
    kept, actions = policy.action_normalizer, demonstrations.actions
    low, high = (actions.double().amin(0), actions.double().amax(0))
    moved = ~kept.varies & ((low != kept.constant) | (high != kept.constant))
    for column in moved.nonzero()[:, 0].tolist():
        raise UserError(
            f"number {column} of the actions was always {float(kept.constant[column]):.4g} in the data of the weights "
            f"that this run begins with, so that it would stay there, and goes from {float(low[column]):.4g} to "
            f"{float(high[column]):.4g} here; set init_normalizer=refit."
        )


def fingerprint_of_numbers(demonstrations: Demonstrations) -> str:
    """Tells the numbers of demonstrations, and which windows train, from others."""
    digest = hashlib.sha256()
    for tensor in (demonstrations.observations.float(), demonstrations.actions.float(), demonstrations.train.indices):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


class ChunkTask(Task):
    """Action chunks for the training core.

    The demonstrations are normalised once and stay on the device; a batch is one gather of window indices. Pictures are
    gathered by `ImageStore`, cropped at random and augmented to train on, whole otherwise.

    Args:
        policy: what is trained; its normalisers are fitted here, on all steps of the data as in the reference, unless
            they are kept.
        objective: noise, time and target.
        demonstrations: the data.
        normalization: modes of (observations, actions); None keeps the normalisers that the policy has.
        mask_padding: leave repeated steps out of the loss.
        noise: settings of the objective's choice of noise, which may need groups of windows or their conditional mean.
        seed: of the groups.
        crop: side of the square in px that is cut from training pictures, or None.
        augmentation: what else is random about them.

    Attributes:
        evaluator: scores a policy, or None.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        objective: Objective,
        demonstrations: Demonstrations,
        *,
        normalization: tuple[str, str] | None,
        mask_padding: bool,
        noise: NoiseConfig,
        seed: int,
        crop: int | None = None,
        augmentation: AugmentationConfig | None = None,
    ) -> None:
        self.model: Denoiser = policy
        self.policy = policy
        self.objective, self.lesson = objective, lesson_of(objective)
        self.mask_padding = mask_padding
        self.evaluator: PolicyEvaluator | None = None
        if normalization is None:
            _check_kept(policy, demonstrations)
        else:
            _fit_normalizers(policy, demonstrations, *normalization)
        self.observations: Tensor = policy.observation_normalizer(demonstrations.observations)
        self.actions: Tensor = policy.action_normalizer(demonstrations.actions)
        self.store = demonstrations.images
        self.crop = crop
        shapes = {} if self.store is None else self.store.shapes
        self.augmentation = Augmentation(augmentation or AugmentationConfig(), shapes)
        self.goal_columns = torch.tensor(policy.goal_columns, dtype=torch.int64)
        images = demonstrations.images
        self.description: dict[str, Any] = {
            "images": {} if images is None else {name: list(shape) for name, shape in images.recorded.items()},
            "resized": {} if images is None else {name: list(size) for name, size in images.resized.items()},
            "goal_columns": list(demonstrations.goal_columns),
            "env_args": demonstrations.metadata.get("env_args"),
        }
        self.action_range = demonstrations.action_range
        self.train, self.validation = demonstrations.train, demonstrations.validation
        self.samples = len(self.train.indices)
        self.validation_samples = 0 if self.validation is None else len(self.validation.indices)
        self.known = policy.known_mask(torch.device("cpu"))
        if isinstance(noise, GroupedAssignmentConfig):
            self.groups, self.group_run = self._groups(noise, demonstrations, seed), noise.group_run
        self.mean = self._mean() if noise.center == "ridge" else None
        self.fingerprint = fingerprint_of_numbers(demonstrations)
        if self.store is not None:
            self.fingerprint += self.store.fingerprint()

    def check_continued(self, checkpoint: Checkpoint, run_dir: Path) -> None:
        """See `Task.check_continued`; an earlier version may have normalised the same data otherwise."""
        super().check_continued(checkpoint, run_dir)
        for name, value in self.policy.state_dict().items():
            if "_normalizer." in name and not torch.equal(checkpoint.tensors["model"].get(name, value), value.cpu()):
                raise UserError(
                    f"{run_dir} was trained by an earlier version, which normalised these data otherwise ({name}); "
                    "choose another run_dir. What is in it can be evaluated as before."
                )

    def largest(self) -> float:
        """The largest magnitude in the trajectories that are diffused: of actions, and of observations in them."""
        diffused = [self.actions, self.observations] if self.policy.inpainting else [self.actions]
        return max(float(values.abs().max()) for values in diffused if values.numel())

    def _conditions(self, steps: Tensor) -> Tensor:
        """Normalised observations that the policy sees, flattened: [B, n_obs_steps * O]."""
        return self.observations[steps[:, : self.policy.config.n_obs_steps]].flatten(1)

    def _groups(self, noise: GroupedAssignmentConfig, demonstrations: Demonstrations, seed: int) -> Tensor:
        """Groups of windows with (nearly) the same condition: the task's own, else clusters of the observations."""
        steps = self.train.indices
        if demonstrations.groups is not None:
            return demonstrations.groups[steps[:, self.policy.config.n_obs_steps - 1]]
        if not self.observations.shape[1]:
            raise UserError(
                f"acceleration.noise.name={noise.name} needs numbers to group by, and task.observation names none "
                "beside the pictures; name task.group, or choose another acceleration/noise."
            )
        with naming("acceleration.noise", count="groups"):
            return kmeans_groups(self._conditions(steps), noise.groups, seed)

    def _mean(self) -> ConditionalMean:
        """A linear prediction of the chunk from the condition, fitted on the training windows."""
        steps = self.train.indices
        with naming("acceleration.noise"):
            return ridge_mean(self._conditions(steps), self._trajectory(steps))

    def _trajectory(self, steps: Tensor) -> Tensor:
        """What is diffused: actions, with the observations when in-painting: [B, horizon, channels]."""
        if self.known is None:
            return self.actions[steps]
        return torch.cat([self.actions[steps], self.observations[steps]], dim=-1)

    def to(self, device: torch.device) -> None:
        """Move model, data and tables to `device`."""
        self.model.to(device)
        self.objective = self.objective.to(device)
        self.observations, self.actions = self.observations.to(device), self.actions.to(device)
        self.train = self.train.to(device)
        if self.validation is not None:
            self.validation = self.validation.to(device)
        if self.store is not None:
            self.store.to(device)
            self.resident = self.store.resident
        self.known = self.policy.known_mask(device)
        self.goal_columns = self.goal_columns.to(device)
        self.groups = None if self.groups is None else self.groups.to(device)
        self.mean = None if self.mean is None else self.mean.to(device)

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """Where pictures of `count` windows are cropped, camera -> [B, n_obs_steps, 2], and how they are changed."""
        if self.store is None:
            return {}
        drawn = {}
        if self.crop is not None:
            drawn = self.store.places((count, self.policy.config.n_obs_steps), self.crop, generator)
        return {**drawn, **self.augmentation.draw(count, generator)}

    def batch(self, indices: Tensor, drawn: Draws = NOTHING) -> Batch:
        """Training windows `indices` [B]: x0 [B, horizon, channels]; condition [B, n_obs_steps, O], None, or a
        dictionary with these as "state" and the pictures, cropped and changed as `drawn` says, or whole.
        """
        indices = to_device(indices, self.actions.device)
        batch = self._gather(self.train, indices, drawn)
        if self.groups is None and self.mean is None:
            return batch
        center = None if self.mean is None else self.mean.predict(self._conditions(self.train.indices[indices]))
        return replace(batch, groups=None if self.groups is None else self.groups[indices], center=center)

    def validation_batch(self, indices: Tensor) -> Batch:
        """Validation windows `indices` [B], pictures whole."""
        assert self.validation is not None
        return self._gather(self.validation, to_device(indices, self.actions.device), NOTHING)

    def _gather(self, windows: Windows, indices: Tensor, drawn: Draws) -> Batch:
        steps = windows.indices[indices]
        counted = windows.valid[indices][:, :, None] if self.mask_padding else None
        condition = self._condition(steps, drawn) if self.policy.conditioned else None
        if self.known is not None:
            counted = ~self.known if counted is None else ~self.known & counted
        return Batch(self._trajectory(steps), condition=condition, counted=counted, known=self.known)

    def _condition(self, steps: Tensor, drawn: Draws) -> Condition:
        """What the denoiser is told of windows `steps` [B, horizon]."""
        observed = steps[:, : self.policy.config.n_obs_steps]
        numbers = self.observations[observed]
        if self.store is not None:
            pictures = self.store.gather(observed, crop=self.crop, places=drawn or None)
            return {STATE: numbers, **self.augmentation(pictures, drawn)}
        if len(self.goal_columns):  # where the window ends is a goal that its actions reach
            return self.policy.with_goal(numbers, self.observations[steps[:, -1]].index_select(1, self.goal_columns))
        return numbers

    def evaluate(self, model: Denoiser, report: Callable[[str], None], *, step: int) -> dict[str, Any] | None:
        """Score `model` by rollouts, or None when the task has no environment."""
        assert isinstance(model, DiffusionPolicy)
        return None if self.evaluator is None else self.evaluator(model, report)

    def close(self) -> None:
        """End the processes of the environments."""
        if self.evaluator is not None:
            self.evaluator.close()
