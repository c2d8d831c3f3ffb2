"""Whether networks of two objectives can answer for each other."""

from __future__ import annotations

from policy_accel.diffusion.objective import Objective

SHARES = 10


def asked_alike(one: Objective, other: Objective) -> bool:
    """Whether a network of `one` is asked the same at every time as one of `other`, and answers with the same target:
    equal levels (alpha, sigma, input scale, what is told of the time) of equal times, and data of equal scale."""
    if (one.target, one.data_scale) != (other.target, other.data_scale):
        return False
    first, second = one.process.to("cpu"), other.process.to("cpu")
    if type(first) is not type(second) or first.timesteps != second.timesteps:
        return False
    times = first.grid(first.timesteps or SHARES).timesteps
    return all(first.level(t) == second.level(t) for t in times)
