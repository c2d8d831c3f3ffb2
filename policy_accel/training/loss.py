"""The loss of one noised batch: the denoising error, and what a network learns besides it."""

from __future__ import annotations

from torch import Tensor

from policy_accel.diffusion import Batch, Noised, squared_errors, weighted_squared_error
from policy_accel.diffusion.learned_variance import split_variance
from policy_accel.diffusion.processes import per_sample
from policy_accel.models.denoiser import Denoiser


def predict(model: Denoiser, batch: Batch, noised: Noised) -> Tensor:
    """The model's prediction for every row of `noised`, [R, *S]."""
    return _output(model, batch, noised)[0]


def _output(model: Denoiser, batch: Batch, noised: Noised) -> tuple[Tensor, Tensor | None]:
    """The prediction, and what the model says of the variance, see `split_variance`.

    The condition is encoded once for each clean sample, however many rows it has.
    """
    condition = model.encode(batch.condition)
    if condition is not None and noised.repeats > 1:
        condition = condition.repeat_interleave(noised.repeats, dim=0)
    return split_variance(model(noised.model_input, noised.t, condition), noised.model_input)


def prediction_loss(model: Denoiser, batch: Batch, noised: Noised) -> Tensor:
    """Weighted squared error of the model's prediction alone, a float32 scalar: what runs are compared by."""
    return weighted_squared_error(
        predict(model, batch, noised), noised.target, weight=noised.weight, mask=noised.counted
    )


def denoising_loss(model: Denoiser, batch: Batch, noised: Noised, of: Tensor | None = None) -> Tensor:
    """What an update minimises on one noised batch, a float32 scalar: the weighted squared error of the model's
    prediction, with what it learns of its error (`Denoiser.uncertainty`) and of the variance of a step
    (`Noised.variance`). `of`: see `weighted_squared_error`."""
    return _loss(model, batch, noised, of)[0]


def denoising_loss_and_errors(
    model: Denoiser, batch: Batch, noised: Noised, of: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The same, with the unweighted error of each row [R], for distributions of timesteps that learn from it."""
    loss, prediction = _loss(model, batch, noised, of)
    return loss, squared_errors(prediction.detach(), noised.target, noised.counted)


def _loss(model: Denoiser, batch: Batch, noised: Noised, of: Tensor | None) -> tuple[Tensor, Tensor]:
    prediction, values = _output(model, batch, noised)
    weight, besides = noised.weight, []
    log_variance = model.uncertainty(noised.t)
    if log_variance is not None:
        # Kendall et al. 2018; Karras et al. 2024, equation 15: a level counts by how well it can be predicted.
        certainty = (-log_variance).exp()
        weight = certainty if weight is None else weight * certainty
        besides.append(per_sample(log_variance, noised.target).expand_as(noised.target))
    loss = weighted_squared_error(prediction, noised.target, weight=weight, mask=noised.counted, of=of)
    if noised.variance is not None:
        assert values is not None, "a network that learns the variance has twice the channels of a sample"
        besides.append(noised.variance.share * noised.variance.bits(values, prediction, noised))
    for part in besides:
        loss = loss + (part.mean() if of is None else part.sum() / of)
    return loss, prediction
