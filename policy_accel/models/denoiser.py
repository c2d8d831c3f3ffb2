"""What every denoiser offers to training and sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from policy_accel.diffusion.batch import Condition


class Denoiser(nn.Module):
    """A network that predicts from a noised sample, the diffusion time and a condition.

    A network of one's own overrides `forward`; `encode` and `no_weight_decay` have defaults.
    """

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Predict [B, *S] from x [B, *S], t [B] (int64, or float32 where time is continuous) and the encoded condition
        [B, ...], or None where there is none."""
        raise NotImplementedError

    if TYPE_CHECKING:  # nn.Module's own declaration returns Any

        def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
            """As `forward`."""

    def encode(self, condition: Condition | None) -> Tensor | None:
        """The condition as `forward` takes it. Training and sampling call this once for each clean sample, however many
        times are drawn for it; here it returns the condition as it is."""
        assert not isinstance(condition, dict), "a denoiser of named conditions overrides encode()"
        return condition

    def units(self) -> list[nn.Module]:
        """Modules, called as modules, whose weights are gathered one after the other where each process keeps a share
        (training.shard); the rest, here everything, is gathered as one."""
        return []

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay leaves alone; none here."""
        return set()
