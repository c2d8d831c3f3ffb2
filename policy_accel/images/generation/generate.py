"""Images from a denoiser. Image i follows from (seed, i) and the weights, whatever is drawn with it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from policy_accel.diffusion.by_level import ByLevel, Denoiser, denoiser_at
from policy_accel.diffusion.counter_noise import normal_by_counter
from policy_accel.diffusion.host_work import to_device
from policy_accel.diffusion.processes import Level
from policy_accel.diffusion.samplers import unchanged
from policy_accel.errors import UserError
from policy_accel.images.generation.classes import class_condition
from policy_accel.images.generation.guidance import Guide, Model, evaluations_per_step
from policy_accel.images.generation.sampling import ImageSampler
from policy_accel.training.precision import autocast
from policy_accel.training.randomness import derive_seed
from policy_accel.training.ranks import ALONE, Ranks

BATCH_SIZE = 256
Watch = Callable[[int, Tensor], None]


@dataclass(frozen=True)
class ImageGenerator:
    """A denoiser with everything that decides which images it draws.

    Args:
        model: `model(x [B, C, H, W], t [B], condition [B, D] | None)`, on `device`, in eval mode.
        shape: (C, H, W).
        sampler: of the training's objective.
        seed: with an image's index it decides the image's noise.
        classes: of the model; 0 without.
        condition_dim: D; 0 for none.
        batch_size: images at a time. It changes an image by no more than the rounding of the network.
        device: of the model.
        precision: fp32, or bf16 or fp16 autocast of the network; the state stays float32.
        ranks: the processes that share the images of `batches`.
        guide: a worse network that guides in place of the null class, or None.

    Raises:
        UserError: guidance that does not go with the classes.
    """

    model: Model
    shape: tuple[int, int, int]
    sampler: ImageSampler
    seed: int
    classes: int = 0
    condition_dim: int = 0
    batch_size: int = BATCH_SIZE
    device: torch.device | str = "cpu"
    precision: str = "fp32"
    ranks: Ranks = ALONE
    guide: Guide | None = None

    def __post_init__(self) -> None:
        if getattr(self.model, "training", False):
            raise ValueError("the model is in training mode, in which dropout is at work; call model.eval() first")
        self.sampler.config.check_classes(self.classes, guide=self.guide is not None)

    def noise(self, indices: Sequence[int]) -> Iterator[Tensor]:
        """Standard normal draws [n, C, H, W] of the images `indices`, on the device: x_T, then one for each step.

        They are drawn there, by counter: all devices draw the same up to rounding, and nothing waits.
        """
        rows = to_device(torch.tensor(list(indices)), torch.device(self.device))
        for number in itertools.count():
            yield normal_by_counter(derive_seed(self.seed, "image"), rows, number, self.shape)

    def draw(
        self,
        indices: Sequence[int],
        labels: Tensor | None = None,
        *,
        image: Tensor | None = None,
        strength: float = 1.0,
        keep: Tensor | None = None,
        resamplings: int = 1,
        watch: Watch | None = None,
    ) -> Tensor:
        """One batch of images [n, C, H, W], float32 on the device, in the data's units.

        With `image` it is an edit: the image is noised and denoised again (Meng et al. 2022, SDEdit). With `keep` it is
        an in-painting: before every evaluation the given part is put back at the noise level of the state, with the
        image's own x_T (Song et al. 2021b, appendix I.2), so the model need not have been trained for it. On its own
        that is not a draw from the conditional distribution: for two entries of correlation 0.9, of which one is given
        as 1.5, the other comes out with a mean of 0.6 (by ddim) or 0.9 (by ddpm) instead of 1.35. Taking each step 5
        times makes it 1.27, with the right deviation.

        Args:
            indices: [n], which images.
            labels: [n] int64, or None for the null class.
            image: [n, C, H, W] to start from or to keep parts of, in the data's units; None to generate.
            strength: share of the steps taken from `image`, in (0, 1]: little changes little, 1 leaves next to nothing
                of an edit, and of an in-painting what is kept; see `policy_accel.diffusion.Sampler`.
            keep: bool, broadcastable to [n, C, H, W]: True where `image` is given and stays.
            resamplings: how often each step is taken, from noise added anew (Lugmayr et al. 2022); more than once takes
                the sampler ddpm, and as many times the evaluations.
            watch: `watch(number, x)` is shown the input x [n, C, H, W] of the network at every prediction.

        Raises:
            UserError: labels that the model does not know, or guidance without labels.
            ValueError: a strength outside (0, 1], or resamplings that the sampler cannot do.
        """
        guidance = self.sampler.config.guidance
        if labels is None and self.guide is None and evaluations_per_step(guidance) > 1:
            raise UserError(f"sampling.guidance={guidance} has no effect without labels; give some.")
        condition = class_condition(labels, len(indices), classes=self.classes, condition_dim=self.condition_dim)
        device = torch.device(self.device)
        condition, image, mask = (
            None if given is None else to_device(given, device) for given in (condition, image, keep)
        )
        worse = None if self.guide is None else self.guide.denoiser(labels, len(indices), device)
        denoise = self.sampler.denoiser(self.model, condition, worse)
        draws = self.noise(indices)
        first = next(draws)

        def known(x: Tensor, level: Level) -> Tensor:
            return torch.where(mask, level.alpha * image + level.sigma * first, x)  # type: ignore[operator,arg-type]

        evaluations = itertools.count()

        def watched(level: Level) -> Denoiser:
            ask = denoiser_at(denoise, level)

            def shown(x: Tensor, t: Tensor) -> Tensor:
                if watch is not None:
                    watch(next(evaluations), x)
                return ask(x, t)

            return shown

        with torch.no_grad(), autocast(device, self.precision):
            return self.sampler(
                ByLevel(watched),
                itertools.chain([first], draws),
                known=unchanged if mask is None else known,
                start=image if mask is None or strength < 1.0 else None,
                strength=strength,
                resamplings=resamplings,
            )

    def batches(
        self,
        indices: Sequence[int],
        labels: Tensor | None = None,
        *,
        image: Tensor | None = None,
        keep: Tensor | None = None,
        **how: Any,
    ) -> Iterator[Tensor]:
        """The images `indices` batch by batch, float32 [<= batch_size, C, H, W] on the CPU, in the data's units ([-1,
        1] for pixels) and not clamped; of several ranks the first gets them all.

        Arguments are those of `draw` for all images; `keep` is [1 or n, 1 or C, H, W].
        """

        def drawn(rows: slice) -> Tensor:
            own_keep = keep if keep is None or len(keep) == 1 else keep[rows]
            own_image, own_labels = (None if all_of is None else all_of[rows] for all_of in (image, labels))
            return self.draw(indices[rows], own_labels, image=own_image, keep=own_keep, **how).float().cpu()

        begins = range(0, len(indices), self.batch_size)
        yield from self.ranks.spread([slice(begin, begin + self.batch_size) for begin in begins], drawn)
