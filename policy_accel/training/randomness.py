"""Named random generators and the order of the data, all restorable."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from policy_accel.acceleration.conditional import grouped_permutation


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one named purpose; different names give unrelated streams."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def named_generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device`, seeded for one named purpose."""
    return torch.Generator(device).manual_seed(derive_seed(seed, *names))


def validation_generators(seed: int, device: torch.device) -> tuple[torch.Generator, torch.Generator]:
    """Generators of timesteps and noise for a validation pass: the same draws at every call."""
    time, noise = (named_generator(seed, f"validation {name}", device=device) for name in ("time", "noise"))
    return time, noise


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Weights initialised in the block follow from `seed` alone, and torch's own generator stays where it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        yield


class Generators:
    """The generators of a training run: diffusion times, noise, what a task draws for its batches (augmentation, label
    dropout), and torch's own (dropout of the network).

    `state_dict` gives JSON-able strings; `load_state_dict` continues every stream where it was.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed = seed
        self.time = named_generator(seed, "time", device=device)
        self.noise = named_generator(seed, "noise", device=device)
        self.batch = named_generator(seed, "batch", device=device)
        self.device = device
        torch.manual_seed(derive_seed(seed, "torch"))

    def set_apart(self, rank: int, step: int) -> None:
        """Begin torch's own stream for the update of `step` on another rank than the first, whose stream goes on and is
        the one in checkpoints: rows of several ranks must not share their dropout."""
        if rank:
            torch.manual_seed(derive_seed(self.seed, "torch", rank, step))

    def draws(self) -> dict[str, Tensor]:
        """State of the generators of times, noise and batches; cheap enough for every update."""
        return {"time": self.time.get_state(), "noise": self.noise.get_state(), "batch": self.batch.get_state()}

    def state_dict(self, draws: dict[str, Tensor] | None = None) -> dict[str, str]:
        """State of every generator as text; times, noise and batches as of `draws` when given."""
        states = {**(self.draws() if draws is None else draws), "torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return {name: base64.b64encode(state.numpy().tobytes()).decode() for name, state in states.items()}

    def load_state_dict(self, states: dict[str, str]) -> None:
        """Continue every stream from `states`; those of another kind of device stay freshly seeded.

        So does the stream of batches when `states` has none: checkpoints had none before tasks drew anything.
        """
        decoded = {
            name: torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
            for name, text in states.items()
        }
        torch.set_rng_state(decoded["torch"])
        if ("cuda" in decoded) != (self.device.type == "cuda"):
            return
        self.time.set_state(decoded["time"])
        self.noise.set_state(decoded["noise"])
        if "batch" in decoded:
            self.batch.set_state(decoded["batch"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(decoded["cuda"], self.device)


class DataOrder:
    """Batches of sample indices: one endless chain of permutations, each drawn from (seed, epoch).

    The batch of a step follows from the step alone, so there is nothing to save, and every batch is full. With `groups`
    [samples] int64 a permutation holds runs of `run` samples of one group.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        seed: int,
        device: torch.device,
        *,
        groups: Tensor | None = None,
        run: int = 1,
    ) -> None:
        self.samples, self.batch_size, self.seed, self.device = samples, batch_size, seed, device
        self.groups, self.run = groups, run
        self._epochs: dict[int, Tensor] = {}

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self._epochs:
            self._epochs = {known: order for known, order in self._epochs.items() if known == epoch - 1}
            generator = named_generator(self.seed, "data order", epoch, device=self.device)
            if self.groups is None:
                order = torch.randperm(self.samples, generator=generator, device=self.device)
            else:
                order = grouped_permutation(self.groups, self.run, generator)
            self._epochs[epoch] = order
        return self._epochs[epoch]

    def batch(self, step: int) -> Tensor:
        """Indices [batch_size] int64 of the batch of `step`, on the device."""
        begin, end = step * self.batch_size, (step + 1) * self.batch_size
        parts = []
        while begin < end:
            epoch, offset = divmod(begin, self.samples)
            stop = min(self.samples, offset + end - begin)
            parts.append(self._permutation(epoch)[offset:stop])
            begin += stop - offset
        return parts[0] if len(parts) == 1 else torch.cat(parts)
