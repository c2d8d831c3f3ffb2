"""What each operation does on a CUDA device, by its name in ATen."""

from __future__ import annotations


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


VIEWS = _names(
    """
    view _unsafe_view expand permute transpose t slice select unsqueeze squeeze detach alias as_strided split
    split_with_sizes unbind reshape _reshape_alias unfold diagonal view_as lift_fresh empty empty_like empty_strided
    new_empty new_empty_strided set_ numel movedim chunk narrow is_pinned sym_size sym_stride unflatten resize_
    _local_scalar_dense
    """
)
"""Launch nothing."""

WAITS = {
    "_local_scalar_dense": "reads one number",
    "equal": "reads the comparison",
    "nonzero": "reads how many",
    "masked_select": "reads how many",
    "_unique2": "reads how many",
    "unique_dim": "reads how many",
    "unique_consecutive": "reads how many",
    "bincount": "reads the largest",
    "_linalg_check_errors": "reads the error code",
    "is_nonzero": "reads one number",
    "repeat_interleave": "reads the sum",
    "multinomial": "checks its input",
}
"""Make the host wait for the device."""

SHAPED_BY_DATA = _names("nonzero masked_select _unique2 unique_dim unique_consecutive repeat_interleave bincount")
INDEXED = _names("index index_put index_put_ _index_put_impl_ _unsafe_index _unsafe_index_put")
"""Take indices on the host, and copy them; a boolean index makes the host wait."""

MIXED = _names("copy_ _to_copy _foreach_copy_ set_ copy _copy_from")
"""Take tensors of both devices."""

RANDOM = _names(
    """
    rand randn randint randperm uniform_ normal_ random_ bernoulli bernoulli_ exponential_ native_dropout dropout
    rand_like randn_like randint_like normal multinomial
    """
)
"""Draw from a generator."""


def waits(name: str, overload: str, kwargs: dict[str, object]) -> str | None:
    """Why the host waits in this operation, or None when it does not."""
    if name == "repeat_interleave" and (overload != "Tensor" or kwargs.get("output_size")):
        return None
    return WAITS.get(name)
