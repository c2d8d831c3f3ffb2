"""A diffusion policy: normalisers, denoiser and the way from observations to a chunk of actions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from policy_accel.data.normalization import Normalizer
from policy_accel.diffusion import Objective
from policy_accel.diffusion.processes import Level
from policy_accel.diffusion.samplers import unchanged
from policy_accel.diffusion.sampling import SamplingConfig, sample
from policy_accel.errors import UserError, did_you_mean
from policy_accel.models import ModelConfig, build_denoiser

CONDITIONINGS = ("global", "inpainting")


@dataclass
class PolicyConfig:
    """Shape of the prediction; the defaults are Diffusion Policy's."""

    horizon: int = 16
    """Steps that the network predicts at once."""
    n_obs_steps: int = 2
    """Newest observations that the policy sees."""
    n_action_steps: int = 8
    """Predicted actions that are executed before the next prediction."""
    conditioning: str = "global"
    """global: observations go to the denoiser as a condition (FiLM or attention). inpainting: the trajectory holds
    actions and observations, and the known observations are put back at every sampling step."""

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
        if self.conditioning not in CONDITIONINGS:
            raise UserError(
                f"policy.conditioning '{self.conditioning}' is unknown; "
                f"{did_you_mean(self.conditioning, CONDITIONINGS)}"
            )


class DiffusionPolicy(nn.Module):
    """Denoiser and normalisers in one module, so that they are saved and loaded together.

    Args:
        config: shape of the prediction.
        model: the denoiser's configuration.
        observation_dim: O, numbers per observation.
        action_dim: A, numbers per action.
    """

    def __init__(self, config: PolicyConfig, model: ModelConfig, *, observation_dim: int, action_dim: int) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.observation_dim, self.action_dim = observation_dim, action_dim
        self.inpainting = config.conditioning == "inpainting"
        self.channels = action_dim + (observation_dim if self.inpainting else 0)
        self.observation_normalizer = Normalizer(observation_dim)
        self.action_normalizer = Normalizer(action_dim)
        self.denoiser = build_denoiser(
            model,
            channels=self.channels,
            horizon=config.horizon,
            condition_shape=None if self.inpainting else (config.n_obs_steps, observation_dim),
        )

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the denoiser keeps from weight decay."""
        names: set[str] = getattr(self.denoiser, "no_weight_decay", set)()
        return {f"denoiser.{name}" for name in names}

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """The denoiser's prediction [B, horizon, channels]."""
        return self.denoiser(x, t, condition)

    def known_mask(self, device: torch.device) -> Tensor | None:
        """Bool [horizon, channels], true at the observations that in-painting is given; None without in-painting."""
        if not self.inpainting:
            return None
        mask = torch.zeros(self.config.horizon, self.channels, dtype=torch.bool, device=device)
        mask[: self.config.n_obs_steps, self.action_dim :] = True
        return mask

    def noise_shape(self, sampling: SamplingConfig) -> tuple[int, int, int]:
        """Shape of the standard normal numbers that one chunk needs: [draws, horizon, channels]."""
        return (sampling.noise_count, self.config.horizon, self.channels)

    @torch.no_grad()
    def predict(
        self,
        observations: Tensor,
        noise: Tensor,
        *,
        objective: Objective,
        clip_sample: float | None,
        sampling: SamplingConfig,
    ) -> Tensor:
        """Predict the actions to execute next.

        Args:
            observations: [B, n_obs_steps, O] in the data's units.
            noise: [B, *noise_shape] standard normal: x_T first, then the fresh noise of each step.
            objective: of the training: forward process, target and scale.
            clip_sample: bound of the normalised sample, or None.
            sampling: sampler, steps and grid.

        Returns:
            Actions [B, n_action_steps, A] in the data's units; the first is for the time of the newest observation.
        """
        normalized = self.observation_normalizer(observations)
        mask = self.known_mask(observations.device)
        condition = None if mask is not None else normalized

        def known(x: Tensor, level: Level) -> Tensor:
            assert mask is not None
            given = torch.zeros_like(x)
            given[:, : self.config.n_obs_steps, self.action_dim :] = normalized
            return torch.where(mask, given, x)

        trajectory = sample(
            lambda x, t: self.denoiser(x, t, condition),
            noise,
            objective,
            sampling,
            clip=clip_sample,
            known=unchanged if mask is None else known,
        )
        start = self.config.n_obs_steps - 1
        chunk = trajectory[:, start : start + self.config.n_action_steps, : self.action_dim]
        return self.action_normalizer.inverse(chunk)
