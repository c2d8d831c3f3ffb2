"""An image model in Python: loaded from anywhere, drawn from, shared."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policy_accel.errors import UserError, one_of
from policy_accel.images.generation.generate import ImageGenerator
from policy_accel.images.run import LoadedImageRun, check_guidance
from policy_accel.images.track import IMAGES
from policy_accel.run_files import located
from policy_accel.run_sampling import AskedSampling
from policy_accel.sharing.hub import local_copy
from policy_accel.training.averages import MAIN
from policy_accel.training.devices import choose_device
from policy_accel.trust import admit


class ImageModel:
    """A trained image model.

    Args:
        run: as it is sampled, see `policy_accel.images.run.LoadedImageRun`.
        device: of its network.
    """

    def __init__(self, run: LoadedImageRun, device: torch.device | str = "cpu") -> None:
        self.run, self.device = run, torch.device(device)

    @classmethod
    def from_pretrained(
        cls,
        source: Path | str,
        *,
        revision: str | None = None,
        token: str | None = None,
        checkpoint: str = "last",
        average: str = MAIN,
        device: str = "auto",
        sampler: str | None = None,
        sampling_steps: int | None = None,
        sampling_times: Sequence[int | float] | None = None,
    ) -> ImageModel:
        """Load a run directory or a checkpoint of one, what `save_pretrained` wrote, a model of EDM (.pkl), DiT (.pt)
        or diffusers (a folder with a UNet2DModel), or a repository of the Hugging Face hub.

        Args:
            source: a path, or OWNER/NAME on the hub.
            revision: branch, tag or commit on the hub.
            token: of the hub; None for that of `hf auth login`, or the variable HF_TOKEN.
            checkpoint: of a run: "last", "best" or a step.
            average: of a run: which average of the weights.
            device: auto, cpu, cuda or cuda:N.
            sampler: its name; None for the model's own.
            sampling_steps: steps of the sampler; None for the model's own.
            sampling_times: the times of the steps in place of their number.

        Raises:
            UserError: nothing of these kinds is there; it is damaged, or of another kind than ours.
        """
        home, checkpoint = located(local_copy(source, revision=revision, token=token), checkpoint)
        admit(home, environment=False)
        where, asked = choose_device(device, "device"), AskedSampling(sampler, sampling_steps, times=sampling_times)
        return cls(IMAGES.load(home, checkpoint, where, average, asked=asked), where)

    def generate(
        self,
        count: int,
        *,
        classes: Sequence[str] | str | None = None,
        seed: int = 0,
        start: int = 0,
        guidance: float | None = None,
        batch_size: int = 64,
    ) -> Tensor:
        """Draw images: uint8 [count, C, H, W], or latents as float where there is no autoencoder.

        Args:
            count: how many.
            classes: the name of the class of all, or of each; None for all classes in turn.
            seed: image i follows from (seed, i) and the weights.
            start: number of the first.
            guidance: weight of classifier-free guidance; None for the model's own.
            batch_size: images at a time, which does not change them beyond rounding.

        Raises:
            UserError: a class that the model does not know; guidance that it was not trained for.
        """
        run = self.run
        sampling = run.sampler.config.asked(guidance, None)
        check_guidance(dataclasses.replace(run.config, sampling=sampling))
        sampler = dataclasses.replace(run.sampler, config=sampling)
        names = [classes] * count if isinstance(classes, str) else classes
        if names is not None and len(names) != count:
            raise UserError(
                f"classes names {len(names)} classes for {count} images; give one for each, or one for all."
            )
        numbers = None
        if names is not None:
            numbers = torch.tensor([run.classes.index(one_of("class", name, run.classes)) for name in names])
        elif run.classes:
            numbers = torch.arange(start, start + count) % len(run.classes)
        generator = ImageGenerator(
            run.model, run.shape, sampler, seed, len(run.classes), run.condition_dim, batch_size, self.device
        )
        batches = generator.batches(range(start, start + count), numbers)
        return torch.cat([run.representation.decode(batch) for batch in batches])

    def save_pretrained(self, folder: Path | str, **settings: Any) -> None:
        """Write weights, config.json and a model card to a folder, from which `from_pretrained` loads the model; see
        `policy_accel.images.sharing.hub.save_pretrained` for settings and errors."""
        from policy_accel.images.sharing.hub import save_pretrained

        save_pretrained(self.run, Path(folder), **settings)

    def push_to_hub(self, repo: str, **settings: Any) -> str:
        """Put the model into the repository OWNER/NAME of the Hugging Face hub; returns the address of the commit. See
        `policy_accel.images.sharing.hub.push_to_hub` for settings and errors."""
        from policy_accel.images.sharing.hub import push_to_hub

        return push_to_hub(self.run, repo, **settings)
