"""Images of a network that policy_accel trained, drawn by diffusers alone.

pipeline = DiffusionPipeline.from_pretrained("FOLDER", trust_remote_code=True)
pipeline(4, class_labels=["cat", 3, 3, None]).images
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from torch import Tensor


class ImagePipeline(DiffusionPipeline):  # type: ignore[misc]
    """From noise to images, with classes, guidance and a scheduler that scales the network's input.

    Args:
        unet: a UNet2DModel; the row behind those of its classes is the null class.
        scheduler: of the process that it was trained on.
        classes: their names; empty for a network without.
        guidance: weight w of null + w (class - null); 1 is the network as it was trained.
        steps: of the scheduler.
        latents: scale and shift of latents, [1 or C] each; None for pixels.
    """

    def __init__(
        self,
        unet: Any,
        scheduler: Any,
        classes: Sequence[str] = (),
        guidance: float = 1.0,
        steps: int = 50,
        latents: Sequence[Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(classes=list(classes), guidance=guidance, steps=steps, latents=latents)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        class_labels: Sequence[str | int | None] | None = None,
        generator: torch.Generator | None = None,
        num_inference_steps: int | None = None,
        guidance: float | None = None,
        noise: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Draw images.

        Args:
            batch_size: how many.
            class_labels: names or numbers of their classes; None is the null class.
            generator: of the noise.
            num_inference_steps: None for `steps`.
            guidance: None for the pipeline's own.
            noise: standard normal to start from, [batch_size, C, H, W]; None to draw it.
            output_type: pil, np, or pt: [B, C, H, W] in [0, 1]. Latents are a tensor in any case.
            return_dict: whether the result has `images`; else it is a tuple.
        """
        config, device = self.unet.config, self._execution_device
        shape = (batch_size, config.in_channels, config.sample_size, config.sample_size)
        if noise is None:
            drawn_on = device if generator is None else generator.device
            noise = torch.randn(shape, generator=generator, device=drawn_on, dtype=self.unet.dtype)
        self.scheduler.set_timesteps(num_inference_steps or self.config.steps)
        image = noise.to(device, self.unet.dtype) * self.scheduler.init_noise_sigma
        weight = self.config.guidance if guidance is None else guidance
        labels = self._labels(class_labels, batch_size)
        known = inspect.signature(self.scheduler.step).parameters
        draws = {"generator": generator} if "generator" in known else {}
        for t in self.progress_bar(self.scheduler.timesteps):
            prediction = self._predict(self.scheduler.scale_model_input(image, t), t, labels, weight)
            image = self.scheduler.step(prediction, t, image, **draws).prev_sample
        if self.config.latents is not None:
            scale, shift = (torch.tensor(part, device=device).view(1, -1, 1, 1) for part in self.config.latents)
            images = image / scale + shift
        else:
            images = (image / 2 + 0.5).clamp(0, 1)
            if output_type != "pt":
                images = images.cpu().permute(0, 2, 3, 1).float().numpy()
                images = self.numpy_to_pil(images) if output_type == "pil" else images
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _labels(self, asked: Sequence[str | int | None] | None, count: int) -> Tensor | None:
        names = list(self.config.classes)
        if not names:
            if asked is not None:
                raise ValueError("class_labels are of no use to a network without classes.")
            return None
        asked = [None] * count if asked is None else asked
        if len(asked) != count:
            raise ValueError(f"{len(asked)} class_labels for batch_size={count}.")
        unknown = [label for label in asked if not (label is None or label in names or label in range(len(names)))]
        if unknown:
            raise ValueError(f"class {unknown[0]!r} is none of {names}.")
        numbers = [len(names) if label is None else names.index(label) if label in names else label for label in asked]
        return torch.tensor(numbers, device=self._execution_device)

    def _predict(self, image: Tensor, t: Tensor, labels: Tensor | None, weight: float) -> Tensor:
        if labels is None or weight == 1.0:
            prediction: Tensor = self.unet(image, t, class_labels=labels).sample
            return prediction
        null = torch.full_like(labels, len(self.config.classes))
        given, without = (self.unet(image, t, class_labels=told).sample for told in (labels, null))
        channels = image.shape[1]  # a learned variance, behind these, is not guided
        guided = without[:, :channels] + weight * (given[:, :channels] - without[:, :channels])
        return torch.cat([guided, given[:, channels:]], dim=1)
