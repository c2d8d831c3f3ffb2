"""What every denoiser offers to training and sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from policy_accel.diffusion.batch import Condition


class Denoiser(nn.Module):
    """A network that predicts from a noised sample, the diffusion time and a condition.

    A network of one's own overrides `forward`; `encode`, `uncertainty`, `no_weight_decay`, `lr_factors` and `matrices`
    have defaults.
    """

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Predict [B, *S] from x [B, *S], t [B] and the encoded condition [B, ...], or None where there is none.

        t is int64, or float32 where time is continuous; for a shortcut model, which is told a step size besides, it is
        [B, 2] (see `embedding.angles`).
        """
        raise NotImplementedError

    if TYPE_CHECKING:  # nn.Module's own declaration returns Any

        def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
            """As `forward`."""

    def encode(self, condition: Condition | None) -> Tensor | None:
        """The condition as `forward` takes it. Training and sampling call this once for each clean sample, however many
        times are drawn for it; here it returns the condition as it is."""
        assert not isinstance(condition, dict), "a denoiser of named conditions overrides encode()"
        return condition

    def uncertainty(self, t: Tensor) -> Tensor | None:
        """The log variance of the prediction's error at times t [R], [R] float32, where the network learns it: the loss
        of a row is then divided by that variance (Karras et al. 2024, equation 15). Here None."""
        return None

    def units(self) -> list[nn.Module]:
        """Modules, called as modules, whose weights are gathered one after the other where each process keeps a share
        (training.shard); the rest, here everything, is gathered as one."""
        return []

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay leaves alone; none here."""
        return set()

    def lr_factors(self) -> dict[str, float]:
        """Names of parameters that learn at another rate, and that rate in units of the others'; none here."""
        return {}

    def matrices(self) -> set[str]:
        """Names of the hidden weights that Muon orthogonalises (training/optimizer=muon); AdamW moves the others.

        Here those of all linear layers, convolutions and attentions but the first and the last to be registered.
        """
        names = [name for name, _ in self.named_parameters() if name in hidden_matrices(self)]
        return set(names[1:-1])


def hidden_matrices(module: nn.Module, *besides: str) -> set[str]:
    """Names of the weights of linear layers, convolutions and attentions in `module`, without those in its parts
    `besides`: what sees inputs, times and classes, and what makes the output."""
    outside = tuple(f"{part}." for part in besides)
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    found = {f"{name}.weight".lstrip(".") for name, part in module.named_modules() if isinstance(part, kinds)}
    found |= {
        f"{name}.in_proj_weight".lstrip(".")
        for name, part in module.named_modules()
        if isinstance(part, nn.MultiheadAttention)
    }
    return {name for name in found if not name.startswith(outside)} if outside else found
