"""A diffusion policy: normalisers, denoiser and the way from observations to a chunk of actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from policy_accel.data.episodes import HORIZON
from policy_accel.diffusion import Sampler
from policy_accel.diffusion.batch import Condition
from policy_accel.diffusion.processes import Level
from policy_accel.diffusion.samplers import unchanged
from policy_accel.errors import UserError, one_of
from policy_accel.models import ModelConfig, build_denoiser
from policy_accel.models.denoiser import Denoiser
from policy_accel.models.encoders import EncoderConfig, ObservationEncoder
from policy_accel.models.encoders.observation import STATE
from policy_accel.policy.actions import decode_actions, executed_dim
from policy_accel.policy.committed import Committed
from policy_accel.policy.image_store import resize_frames
from policy_accel.policy.normalization import Normalizer
from policy_accel.policy.observations import Observations

CONDITIONINGS = ("global", "inpainting", "planning")


@dataclass
class PolicyConfig:
    """Shape of the prediction; the defaults are Diffusion Policy's."""

    horizon: int = HORIZON
    """Steps that the network predicts at once."""
    n_obs_steps: int = 2
    """Newest observations that the policy sees."""
    n_action_steps: int = 8
    """Predicted actions that are executed before the next prediction."""
    conditioning: str = "global"
    """global: observations go to the denoiser as a condition (FiLM or attention). inpainting: the trajectory holds
    actions and observations, and the known observations are put back at every sampling step. planning: so, and the
    goal is put at the last step (Janner et al. 2022); the denoiser is also told both as a condition."""

    def check(self) -> None:
        """Raise UserError unless the numbers fit together."""
        for name in ("horizon", "n_obs_steps", "n_action_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"policy.{name}={getattr(self, name)} must be at least 1.")
        longest = self.horizon - self.n_obs_steps + 1
        if self.n_action_steps > longest:
            raise UserError(
                f"policy.n_action_steps={self.n_action_steps} is more than horizon - n_obs_steps + 1 = "
                f"{self.horizon} - {self.n_obs_steps} + 1 = {longest}; execute {longest} or lengthen policy.horizon."
            )
        one_of("policy.conditioning", self.conditioning, CONDITIONINGS)


class DiffusionPolicy(Denoiser):
    """Encoder, denoiser and normalisers in one module, so that they are saved and loaded together.

    Args:
        config: shape of the prediction.
        model: the denoiser's configuration; None where `plan` is another one, that takes no networks from here.
        observation_dim: O, numbers per observation; without the goal where that pins the end of a plan.
        action_dim: A, numbers per action in the form that is diffused.
        images: picture -> (H, W, C) of its whole frames; {} for a policy of numbers alone.
        resized: picture -> (H, W) that whole frames are brought to first, of those that are.
        encoder: settings of the network that makes features of the pictures.
        goal_columns: columns of the observation that the goal of a plan pins.
        action_rotation: form of the actions, see `policy_accel.policy.actions`.

    Attributes:
        fixed: whether plans always begin at noise, are free, and in a precision that is not to be chosen, as those of
            an exported file.
        precision: in which a `Planner` lets matrix products and convolutions be computed: fp32, bf16 or fp16.
    """

    fixed = False
    precision = "fp32"

    def __init__(
        self,
        config: PolicyConfig,
        model: ModelConfig | None,
        *,
        observation_dim: int,
        action_dim: int,
        images: Mapping[str, tuple[int, int, int]] | None = None,
        resized: Mapping[str, tuple[int, int]] | None = None,
        encoder: EncoderConfig | None = None,
        goal_columns: Sequence[int] = (),
        action_rotation: str = "none",
    ) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.observation_dim, self.action_dim = observation_dim, action_dim
        self.action_rotation = action_rotation
        self.goal_columns = tuple(goal_columns)
        self.inpainting = config.conditioning != "global"
        self.images, self.resized = dict(images or {}), dict(resized or {})
        if self.inpainting and self.images:
            raise UserError(
                f"policy.conditioning={config.conditioning} puts observations into the trajectory, which pictures do "
                "not fit; use policy.conditioning=global."
            )
        self.conditioned = config.conditioning != "inpainting"
        self.channels = action_dim + (observation_dim if self.inpainting else 0)
        self.observation_normalizer = Normalizer(observation_dim)
        self.action_normalizer = Normalizer(action_dim)
        self.encoder: ObservationEncoder | None = None
        features = self.input_dim
        if self.images and model is not None:
            frames = {name: (*self.resized.get(name, shape[:2]), shape[2]) for name, shape in self.images.items()}
            self.encoder = ObservationEncoder(encoder or EncoderConfig(), images=frames, state_dim=observation_dim)
            features = self.encoder.output_dim
        self.denoiser = Denoiser()
        if model is not None:
            self.denoiser = build_denoiser(
                model,
                channels=self.channels,
                horizon=config.horizon,
                condition_shape=(config.n_obs_steps, features) if self.conditioned else None,
            )

    @property
    def device(self) -> torch.device:
        """Where observations are taken from, and trajectories given."""
        return self.action_normalizer.scale.device

    @property
    def input_dim(self) -> int:
        """Numbers that `predict` takes for each observation: O, and the goal of a plan."""
        return self.observation_dim + len(self.goal_columns)

    @property
    def executed_dim(self) -> int:
        """Numbers of an action that `predict` returns."""
        return executed_dim(self.action_dim, self.action_rotation)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the denoiser keeps from weight decay."""
        return {f"denoiser.{name}" for name in self.denoiser.no_weight_decay()}

    def lr_factors(self) -> dict[str, float]:
        """See `Denoiser.lr_factors`: the denoiser's, and those of the encoder."""
        factors = {f"denoiser.{name}": factor for name, factor in self.denoiser.lr_factors().items()}
        if self.encoder is not None:
            factors |= {f"encoder.{name}": factor for name, factor in self.encoder.lr_factors().items()}
        return factors

    def matrices(self) -> set[str]:
        """See `Denoiser.matrices`: the denoiser's, and those of the encoder that do not see pixels."""
        names = {f"denoiser.{name}" for name in self.denoiser.matrices()}
        if self.encoder is None:
            return names
        return names | {f"encoder.{name}" for name in self.encoder.matrices()}

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """The denoiser's prediction [B, horizon, channels]; `condition` is encoded already."""
        return self.denoiser(x, t, condition)

    def encode(self, condition: Condition | None) -> Tensor | None:
        """Normalised observations as the denoiser takes them: [B, n_obs_steps, features]."""
        return super().encode(condition) if self.encoder is None else self.encoder(condition)

    def with_goal(self, normalized: Tensor, goal: Tensor) -> Tensor:
        """The condition of a plan: normalised observations [B, n_obs_steps, O], each with the goal [B, G] behind it."""
        return torch.cat([normalized, goal[:, None].expand(-1, normalized.shape[1], -1)], dim=-1)

    def known_mask(self, device: torch.device) -> Tensor | None:
        """Bool [horizon, channels], true at the observations (and the goal) that in-painting is given, else None."""
        if not self.inpainting:
            return None
        mask = torch.zeros(self.config.horizon, self.channels, dtype=torch.bool, device=device)
        mask[: self.config.n_obs_steps, self.action_dim :] = True
        mask[-1, [self.action_dim + column for column in self.goal_columns]] = True
        return mask

    def noise_shape(self, sampler: Sampler) -> tuple[int, int, int]:
        """Shape of the standard normal numbers that one chunk needs: [draws, horizon, channels]."""
        return (sampler.noise_count, self.config.horizon, self.channels)

    @torch.no_grad()
    def predict(self, observations: Observations, noise: Tensor, *, sampler: Sampler) -> Tensor:
        """Predict the actions to execute next.

        Args:
            observations: [B, n_obs_steps, input_dim] in the data's units, or a dictionary with these as "state" and
                pictures uint8 [B, n_obs_steps, H, W, C].
            noise: [B, *noise_shape] standard normal: x_T first, then the fresh noise of each step.
            sampler: of the training's objective.

        Returns:
            Actions [B, n_action_steps, executed_dim] in the data's units, in `action_normalizer.dtype`; the first is
            for the time of the newest observation.
        """
        return self.executed(self.plan(observations, noise, sampler=sampler))

    @torch.no_grad()
    def plan(
        self,
        observations: Observations,
        noise: Tensor,
        *,
        sampler: Sampler,
        start: Tensor | None = None,
        strength: float = 1.0,
        committed: Committed | None = None,
    ) -> Tensor:
        """The whole normalised trajectory [B, horizon, channels] of which `predict` returns a part.

        `start` [B, horizon, channels] is a trajectory to start from: it is noised to the last `strength` of the
        sampler's steps, which alone are taken then. `committed` are actions that the trajectory is to agree with. The
        other arguments are those of `predict`.
        """
        condition, given = self._inputs(observations)
        mask = None if given is None else self.known_mask(given.device)
        put_back = None if committed is None else committed.put_back(noise[:, 0])

        def known(x: Tensor, level: Level) -> Tensor:
            x = x if mask is None else torch.where(mask, given, x)  # type: ignore[arg-type]
            return x if put_back is None else put_back(x, level)

        return sampler(
            lambda x, t: self.denoiser(x, t, condition),
            noise,
            known=unchanged if mask is None and put_back is None else known,
            start=start,
            strength=strength,
            guidance=None if committed is None else committed.guidance(self.channels),
        )

    def executed(self, trajectory: Tensor) -> Tensor:
        """The actions of a normalised trajectory [B, horizon, channels] that are executed before the next prediction:
        [B, n_action_steps, executed_dim] in the data's units."""
        return self.decoded(self.executed_part(trajectory))

    def decoded(self, actions: Tensor) -> Tensor:
        """Normalised actions [..., A] in the data's units: [..., executed_dim]."""
        return decode_actions(self.action_normalizer.inverse(actions), self.action_rotation)

    def executed_part(self, trajectory: Tensor) -> Tensor:
        """`executed` as it is in the trajectory: [B, n_action_steps, A], normalised."""
        start = self.config.n_obs_steps - 1
        return trajectory[:, start : start + self.config.n_action_steps, : self.action_dim]

    def _inputs(self, observations: Observations) -> tuple[Tensor | None, Tensor | None]:
        """The encoded condition, and the trajectory [B, horizon, channels] that holds what in-painting is given."""
        if isinstance(observations, dict):
            normalized = self.observation_normalizer(observations[STATE])
            pictures = {name: resize_frames(observations[name], size) for name, size in self.resized.items()}
            return self.encode({**observations, **pictures, STATE: normalized}), None
        states, goal = observations[..., : self.observation_dim], observations[:, -1, self.observation_dim :]
        normalized = self.observation_normalizer(states)
        if not self.inpainting:
            return normalized, None
        given = normalized.new_zeros(normalized.shape[0], self.config.horizon, self.channels)
        given[:, : self.config.n_obs_steps, self.action_dim :] = normalized
        if not self.goal_columns:
            return None, given
        columns = list(self.goal_columns)
        goal = self.observation_normalizer(goal, columns)
        given[:, -1, [self.action_dim + column for column in columns]] = goal
        return self.with_goal(normalized, goal), given
