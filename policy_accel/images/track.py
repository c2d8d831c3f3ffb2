"""The image track: denoisers of images, measured by the images that they make."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from policy_accel.configuration import SOURCES
from policy_accel.data.images import image_form, read_images
from policy_accel.distill import teach
from policy_accel.errors import UserError
from policy_accel.foreign.kinds import is_foreign
from policy_accel.images.config import ImageConfig
from policy_accel.images.deviation import KEY, kept, resolved
from policy_accel.images.elsewhere import taken_elsewhere
from policy_accel.images.generation.autoguidance import load_guide
from policy_accel.images.generation.guidance import Guide
from policy_accel.images.heading import image_heading
from policy_accel.images.latents.representation import Representation, encoding_in
from policy_accel.images.metrics import table
from policy_accel.images.metrics.inception import check_inception
from policy_accel.images.run import (
    LoadedImageRun,
    build_model,
    build_sampler,
    check_config,
    check_guidance,
    representation_of,
    represented,
)
from policy_accel.images.scoring.evaluate import ImageEvaluator
from policy_accel.images.scoring.protocol import PUBLISHED_IMAGES
from policy_accel.images.sets import ImageSplit, load_split
from policy_accel.images.task import ImageTask, condition_size
from policy_accel.run_files import results_folder
from policy_accel.run_sampling import AS_CHOSEN, AskedSampling
from policy_accel.scoring import Score
from policy_accel.track import Recommendation, Report, Track, best_average, replaced
from policy_accel.training.averages import MAIN, asked_averages, load_average, refuse_choice
from policy_accel.training.checkpoint import Checkpoint, fitting
from policy_accel.training.devices import choose_device, use_device
from policy_accel.training.first_weights import begin_with, first_checkpoint, own_checkpoint, told
from policy_accel.training.ranks import ALONE, Ranks

UNKNOWN = "unknown"
"""The data of a model that does not say what trained it."""


class ImageTrack(Track[ImageConfig]):
    """See `Track`."""

    source = SOURCES["images"]
    demo = "images_demo"
    schema = ImageConfig

    def config(
        self, overrides: Sequence[str], config_dir: Path | None = None, report: Report = lambda _: None
    ) -> ImageConfig:
        """See `Track.config`."""
        config = super().config(overrides, config_dir, report)
        note = taken_elsewhere(self.source, overrides, config_dir)
        if note is not None:
            report(note)
        if "method=baseline" in overrides and config.method != "baseline":
            raise UserError(
                f"recipe={config.label} names accelerations of its own, which method=baseline does not turn off; their "
                "baselines are recipe=ddpm_cifar10 and recipe=edm_cifar10."
            )
        return config

    def recommend(self, config: ImageConfig) -> Recommendation:
        """See `Track.recommend`."""
        why = "for images no method earned more than a schedule with less noise (squaredcos_cap_v2), at one small size"
        return Recommendation("baseline", why, "benchmarks/results/image_methods_16px_cpu.json")

    def read(self, run_dir: Path) -> ImageConfig:
        """See `Track.read`; with the deviation of the data that was measured, where it is known."""
        config = super().read(run_dir)
        return kept(config, own_checkpoint(run_dir)) if config.diffusion.sigma_data is None else config

    def check(self, config: ImageConfig) -> None:
        """See `Track.check`."""
        config.training.check()
        check_config(config)

    def check_here(self, config: ImageConfig) -> None:
        """See `Track.check_here`; also the network of the FID, where the settings name it."""
        super().check_here(config)
        if config.evaluation.metrics.inception:
            check_inception(Path(config.evaluation.metrics.inception))

    def check_data(self, config: ImageConfig) -> None:
        """See `Track.check_data`."""
        if image_form(config.task.data) is None:
            read_images(config.task.data, "train")  # which says what is there instead

    def check_weights(self, config: ImageConfig) -> None:
        """See `Track.check_weights`."""
        first_checkpoint(config, self._from_file)

    def build(self, config: ImageConfig, *, scored: bool = False, ranks: Ranks = ALONE) -> ImageTask:
        """See `Track.build`."""
        check_config(config)
        begun, device = first_checkpoint(config, self._from_file), choose_device(config.training.device)
        split = load_split(config.task)
        model = build_model(config, split.train.shape, len(split.classes))
        if begun is not None:
            begin_with(model, begun, config, self.record(config))
        composed = config
        config, scaled = self._resolved(config, split, begun)
        sampler = build_sampler(config)
        evaluator = ImageEvaluator(config, split, Path(config.run_dir), device, ranks=ranks) if scored else None
        task = ImageTask(
            model,
            sampler.objective,
            split,
            config.task,
            representation=representation_of(config, split),
            noise=config.acceleration.noise,
            evaluator=evaluator,
        )
        task.heading = {
            **image_heading(config, split),
            "values": scaled,
            "pictures": "" if evaluator is None else evaluator.decoded(),
        }
        task.description = {
            **task.description,
            KEY: config.diffusion.sigma_data if config.diffusion.sees_sigma_data else None,
        }
        if begun is not None:
            task.heading = {**task.heading, "begins": told(begun, composed, self.record(composed))}
        teach(self, config, task, sampler)
        return task

    def _resolved(self, config: ImageConfig, split: ImageSplit, begun: Checkpoint | None) -> tuple[ImageConfig, str]:
        """`resolved` for a run that begins with the weights of `begun`, or goes on."""
        return resolved(config, split, begun or own_checkpoint(Path(config.run_dir)))

    def load(
        self,
        run_dir: Path,
        checkpoint: str = "last",
        device: torch.device | str = "cpu",
        average: str = MAIN,
        *,
        asked: AskedSampling = AS_CHOSEN,
    ) -> LoadedImageRun:
        """See `Track.load`; also with another average of the weights, see `load_average`. `run_dir` may be a file that
        `save_pretrained` or another library wrote."""
        config = self.read(run_dir)
        if run_dir.is_file():
            refuse_choice(run_dir, checkpoint, average)
            return _of_file(run_dir, config, device, asked)
        config.sampling, _ = asked.of_run(config.sampling)
        saved = load_average(run_dir, checkpoint, average)
        config = kept(config, saved)
        image_format = saved.state.get("task")
        if not isinstance(image_format, dict):
            raise UserError(
                f"{saved.path / 'state.json'} does not say what images the model makes; train the run again."
            )
        with fitting(saved.path):
            shape, classes = tuple(image_format["shape"]), tuple(image_format["classes"])
            model = build_model(config, shape, len(classes))
            model.load_state_dict(saved.tensors[MAIN])
            encoding = encoding_in(image_format, str(saved.path / "state.json"))
        representation = Representation() if encoding is None else represented(config.task, encoding, shape[0], device)
        config.training.lay_out(model, device)
        model.eval().requires_grad_(False)
        return LoadedImageRun(
            model,
            config,
            saved.step,
            build_sampler(config),
            shape,
            classes if config.task.conditional else (),
            condition_size(config.task, len(classes)),
            representation,
            source=run_dir,
        )

    def _from_file(self, path: Path) -> Checkpoint:
        """The weights of a model that is one file, as its run's checkpoint would have them."""
        loaded = self.load(path)
        return Checkpoint(loaded.step, path, {MAIN: dict(loaded.model.state_dict())}, {})

    def scorer(self, config: ImageConfig, device: torch.device) -> Score:
        """See `Track.scorer`."""
        run_dir = Path(config.run_dir)
        split = load_split(config.task)
        config, _ = self._resolved(config, split, first_checkpoint(config))
        evaluator = ImageEvaluator(config, split, run_dir, device)
        return lambda step, report: evaluator(self.load(run_dir, str(step), device).model, report, step=step)

    def evaluate(
        self, run_dir: Path, options: argparse.Namespace, report: Report, ranks: Ranks = ALONE
    ) -> dict[str, Any]:
        """See `Track.evaluate`; one average of the weights is scored, or all of them, and the best is the result."""
        device = choose_device(options.device, "--device")
        config = self.read(run_dir)
        guide = load_guide(self.load, run_dir, options, device)
        _change(config, options, guide)
        use_device(device, threads=config.training.threads, matmul_precision=config.training.matmul_precision)
        single = run_dir.is_file()
        names = [options.average or MAIN] if single else asked_averages(run_dir, options.checkpoint, options.average)
        if config.task.data == UNKNOWN:
            raise UserError(
                f"{run_dir} does not say what it was trained on; name the images to compare with, --data PATH."
            )
        split = load_split(config.task)
        evaluator = ImageEvaluator(config, split, results_folder(run_dir), device, ranks=ranks, guide=guide)
        results = []
        for name in names:
            loaded = self.load(run_dir, options.checkpoint, device, name)
            if split.train.shape != loaded.shape:
                raise UserError(
                    f"{config.task.data} has images of {split.train.shape} (channels, height, width), and "
                    f"{run_dir} was trained on {loaded.shape}; put the run's data back, or give others with --data."
                )
            if loaded.classes and len(loaded.classes) != len(split.classes):
                raise UserError(
                    f"{config.task.data} has {len(split.classes)} classes, and {run_dir} knows {len(loaded.classes)}; "
                    "give the images that it was trained on with --data."
                )
            measured = evaluator.measure(loaded.model, report, full=True)
            if measured is None:
                raise UserError("--samples 0 leaves nothing to score; give 2 or more.")
            results.append({"step": loaded.step, "average": name, **measured})
            report(f"{name}, step {loaded.step}: {self.describe(results[-1])}")
        return best_average(results, report)

    def describe(self, result: dict[str, Any]) -> str:
        """The measures of generated images beside their floors, and how the images were made."""
        protocol = f"\n{result['protocol']['says']}" if "protocol" in result else ""  # not in those of earlier versions
        guidance = f", guidance {result['guidance']:g}" if result["guidance"] != 1 else ""
        if interval := result.get("sampling_guidance_interval"):
            guidance += f" at noise levels {interval[0]:g} to {interval[1]:g}"
        if guide := result.get("guide"):
            guidance += f" by {guide['run']} (step {guide['step']}, {guide['average']}: {guide['evaluations']} of them)"
        return (
            f"{result['images']} images by {result['sampler']} with {result['network_evaluations']} network "
            f"evaluations each{guidance}, seed {result['seed']}:\n{table(result['measures'])}{protocol}"
        )


def _of_file(path: Path, config: ImageConfig, device: torch.device | str, asked: AskedSampling) -> LoadedImageRun:
    """A model that is one file, with what is above this room."""
    if is_foreign(path):
        from policy_accel.foreign.opened import load_foreign

        loaded: LoadedImageRun = load_foreign(path, device=device, asked=asked)
        return loaded
    from policy_accel.images.sharing.hub import load_shared

    return load_shared(path, config, device, asked)


def _change(config: ImageConfig, options: argparse.Namespace, guide: Guide | None) -> None:
    published = PUBLISHED_IMAGES if options.protocol == "edm" else None
    evaluation = replaced(
        config.evaluation,
        samples=published if options.samples is None else options.samples,
        protocol=options.protocol,
        seed=options.seed,
        batch_size=options.batch_size,
        video=False,
    )
    evaluation.metrics = replaced(
        evaluation.metrics,
        inception=options.inception,
        reference=options.reference,
        mirrored_reference=options.mirrored_reference,
        resnet=options.resnet,
    )
    config.evaluation = evaluation
    config.task = replaced(config.task, data=options.data)
    sampling, _ = AskedSampling.of(options).of_run(config.sampling)
    config.sampling = sampling.asked(options.guidance, options.guidance_interval)
    check_guidance(config, guide=guide is not None)


IMAGES = ImageTrack()
