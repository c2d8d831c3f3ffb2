"""Class conditions of an image denoiser, and classifier-free guidance (Ho & Salimans 2022)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from policy_accel.diffusion.learned_variance import split_variance
from policy_accel.diffusion.samplers import Denoiser
from policy_accel.errors import UserError, did_you_mean

Model = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def class_condition(labels: Tensor | None, count: int, *, classes: int, condition_dim: int) -> Tensor | None:
    """Conditions of `count` images, float32 [count, condition_dim]; None for a model without any.

    The first `classes` numbers are one-hot. They are zero, the null class, without labels. Numbers after the classes
    (the parameters of an augmentation) are zero: images as they were before it.

    Raises:
        UserError: labels for a model without classes, or outside 0 .. classes - 1.
    """
    if labels is not None and not classes:
        raise UserError("labels are of no use to a model that was trained without classes; leave them out.")
    if not condition_dim:
        return None
    if labels is None:
        return torch.zeros(count, condition_dim)
    if len(labels) != count:
        raise ValueError(f"{len(labels)} labels for {count} images")
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise UserError(f"label {int(outside[0])} is none of the model's classes; choose 0 to {classes - 1}.")
    # One-hot over the whole condition: labels are below `classes`, so what follows stays zero.
    return one_hot(labels.long(), condition_dim).float()


def class_numbers(text: str, classes: tuple[str, ...]) -> tuple[int, ...]:
    """Numbers of the classes in a comma-separated `text`: by name, or by number where no class is called so, or "all".

    Raises:
        UserError: one of them is no class.
    """
    if text.strip() == "all":
        return tuple(range(len(classes)))
    numbers: list[int] = []
    pieces, known = _pieces(text), [_pieces(name) for name in classes]
    while pieces:
        length = max((len(name) for name in known if pieces[: len(name)] == name), default=1)  # names may have commas
        named = [number for number, name in enumerate(known) if name == pieces[:length]]
        numbers.append(named[0] if named else _class_number(pieces[0], classes))
        pieces = pieces[length:]
    return tuple(numbers)


def _pieces(text: str) -> list[str]:
    return [piece.strip() for piece in text.split(",")]


def _class_number(name: str, classes: tuple[str, ...]) -> int:
    if name.lstrip("-").isdigit():
        if 0 <= int(name) < len(classes):
            return int(name)
        raise UserError(f"label {name} is none of the model's {len(classes)} classes; choose 0 to {len(classes) - 1}.")
    raise UserError(f"label '{name}' is none of the model's classes; {did_you_mean(name, classes)}")


def evaluations_per_step(guidance: float) -> int:
    """How often guidance of this weight evaluates the network for one evaluation of the sampler: 1 or 2."""
    return 1 if guidance in (0.0, 1.0) else 2


def guided(model: Model, condition: Tensor | None, guidance: float = 1.0) -> Denoiser:
    """A denoiser of (x, t) with classifier-free guidance: null + w (conditional - null).

    This is the prediction itself, not the noise: the clean sample is an affine function of it for every target, so
    guiding any of them is the same (Ho & Salimans 2022, equation 6, with their weight equal to w - 1). A learned
    variance stays that of the conditional prediction.

    Args:
        model: `model(x [B, *S], t [B], condition [B, D] | None)`.
        condition: of each image [B, D]; all zeros is the null class.
        guidance: w. 1 is the conditional model alone, 0 the unconditional one, each one evaluation; any other weight
            one evaluation of a batch of 2 B. Other weights than 1 take a condition.
    """
    if guidance == 1.0:
        return lambda x, t: model(x, t, condition)
    assert condition is not None, "ImageSamplingConfig.check_classes refuses guidance without classes"
    null = torch.zeros_like(condition)
    if guidance == 0.0:
        return lambda x, t: model(x, t, null)
    both = torch.cat([condition, null])

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        # In the state's precision: under autocast the difference of two bf16 predictions would lose its digits.
        conditional, unconditional = model(torch.cat([x, x]), torch.cat([t, t]), both).to(x.dtype).chunk(2)
        conditional, variance = split_variance(conditional, x)
        unconditional, _ = split_variance(unconditional, x)
        prediction = unconditional + guidance * (conditional - unconditional)
        return prediction if variance is None else torch.cat([prediction, variance], dim=1)

    return denoise
