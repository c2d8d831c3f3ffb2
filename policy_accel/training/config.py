"""How a run of any track is trained, as settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from omegaconf import MISSING
from torch import nn

from policy_accel.acceleration.config import GROUPS, AccelerationConfig
from policy_accel.acceleration.noise_choices import NoiseConfig
from policy_accel.acceleration.path import PathConfig
from policy_accel.acceleration.timesteps import TimestepsConfig
from policy_accel.diffusion.config import DiffusionConfig
from policy_accel.errors import UserError, naming, one_of
from policy_accel.groups import register_group
from policy_accel.models.layout import LAYOUTS, lay_out
from policy_accel.training.checkpoint import CheckpointConfig
from policy_accel.training.devices import check_threads
from policy_accel.training.distillation import DistillationConfig
from policy_accel.training.ema import EMAConfig
from policy_accel.training.metrics import LoggingConfig
from policy_accel.training.optimizer import OPTIMIZER_CONFIGS, MuonConfig, OptimizerConfig
from policy_accel.training.precision import MATMUL_PRECISIONS, PRECISIONS, precision_on
from policy_accel.training.ranks import Ranks
from policy_accel.training.wandb_run import MODES

REDUCE_PRECISIONS = ("fp32", "bf16")
POWER_OF_TWO = 64
CAPTURES = ("auto", "true", "false")

# Before the momentum decay, which lies in it.
register_group("training/optimizer", OptimizerConfig, OPTIMIZER_CONFIGS)
for name, choices in GROUPS.items():
    register_group(name, choices[0], choices)


@dataclass
class TrainingConfig:
    """How long, how and on what to train."""

    steps: int = 10_000
    """Optimiser updates of the whole run."""
    batch_size: int = 256
    """Samples of an update, whatever shares it: several processes (torchrun) and `accumulate`."""
    accumulate: int = 1
    """Pieces in which a process takes its samples through the network, one after the other, before it updates: for
    batches that do not fit. The same update, up to the order of sums."""
    reduce_precision: str = "fp32"
    """In which several processes sum their gradients: fp32, or bf16 (half of what goes over the wire; it rounds)."""
    shard: bool = False
    """Each of several processes keeps its share of weights, gradients, moments and averages alone (FSDP2), for networks
    that do not fit one GPU beside their batch; slower. The averages that score stay whole."""
    device: str = "auto"
    """auto (CUDA when there is one), cpu, cuda or cuda:N."""
    threads: int = 0
    """CPU threads of torch; 0 for the faster of one and one each core, measured on a batch at the start, unless
    OMP_NUM_THREADS says how many. Checkpoints record them and a resumed run keeps them: another number changes the last
    bits of the weights."""
    precision: str = "auto"
    """fp32, or bf16 or fp16 autocast (slow on most CPUs), where weights, coefficients and loss stay float32; auto: on
    CUDA bf16, or fp16 where the card has no bf16, and fp32 on the CPU."""
    matmul_precision: str = "auto"
    """float32 matrix products and convolutions on CUDA: highest (true float32), high or medium (TF32); auto: high on
    CUDA, highest on the CPU."""
    deterministic: bool = False
    """On CUDA, kernels that give the same bits each time, so that a resumed run makes those of one that never stopped;
    slower. A warning names what torch has no such kernel for. The CPU's always do."""
    channels_last: str = "auto"
    """Order of images in memory, weights and activations: true is [B, H, W, C], false [B, C, H, W], auto true on CUDA
    alone. It changes the last bits."""
    compile: bool = False
    """Compile the loss and its gradient with torch.compile."""
    capture: str = "auto"
    """Run updates as CUDA graphs: auto (on CUDA), true or false. The same numbers either way, with less for the host to
    do."""
    validate_every: int = 1000
    """Updates between validation losses; 0 for none."""
    evaluate_every: int = 0
    """Updates between evaluations (rollouts) during training; 0 evaluates after the last update only."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: EMAConfig = field(default_factory=EMAConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)

    def shards(self, ranks: Ranks, device: torch.device) -> bool:
        """Whether each of `ranks` keeps a share of the weights. Raises UserError when it cannot."""
        if self.shard and self.precision_on(device) == "fp16":
            raise UserError(
                "training.shard=true does not go together with fp16, whose loss scale wants all gradients in one "
                "place; set training.precision=bf16 or fp32."
            )
        return self.shard and ranks.count > 1

    def idle_alone(self) -> list[str]:
        """The settings that have no effect in a run of one process."""
        asked = {"shard=true": self.shard, f"reduce_precision={self.reduce_precision}": self.reduce_precision != "fp32"}
        return [f"training.{setting}" for setting, idle in asked.items() if idle]

    def captures(self, device: torch.device) -> bool:
        """Whether updates on `device` run as CUDA graphs. Raises UserError when they cannot."""
        choice = self.capture.lower()
        if choice == "true" and device.type != "cuda":
            raise UserError(
                f"training.capture=true needs a CUDA device, and this run is on the {device.type}; use auto."
            )
        return device.type == "cuda" and choice != "false"

    def lay_out(self, model: nn.Module, device: torch.device | str) -> None:
        """Move a model to `device`, its images in the order that is chosen for it."""
        lay_out(model, device, self.channels_last.lower())

    def precision_on(self, device: torch.device) -> str:
        """In what the network computes on `device`, the current one: fp32, bf16 or fp16."""
        return precision_on(device, self.precision)

    def pieces(self, ranks: Ranks) -> int:
        """`accumulate`, when the batch divides so among `ranks`. Raises UserError when it does not."""
        parts = ranks.count * self.accumulate
        if self.batch_size % parts:
            raise UserError(
                f"training.batch_size={self.batch_size} does not divide into {parts} equal parts ({ranks.count} "
                f"processes times training.accumulate={self.accumulate}); choose a multiple of {parts}."
            )
        return self.accumulate

    def within(self, samples: int, parts: int) -> TrainingConfig:
        """With a batch of at most `samples`: a batch has each of them once. It divides into `parts`, and by such powers
        of two as before, which some methods ask for."""
        if self.batch_size <= samples or parts < 1:
            return self
        unit = math.lcm(math.gcd(self.batch_size, POWER_OF_TWO), parts)
        return replace(self, batch_size=samples // unit * unit or samples // parts * parts or parts)

    def check(self) -> None:
        """Raise UserError unless the numbers make sense."""
        checkpoint = self.checkpoint
        for name, value, least in (
            ("steps", self.steps, 1),
            ("batch_size", self.batch_size, 1),
            ("accumulate", self.accumulate, 1),
            ("logging.every", self.logging.every, 1),
            ("validate_every", self.validate_every, 0),
            ("evaluate_every", self.evaluate_every, 0),
            ("checkpoint.every", checkpoint.every, 0),
            ("checkpoint.keep_best", checkpoint.keep_best, 0),
            ("checkpoint.keep_every", checkpoint.keep_every, 0),
            ("optimizer.warmup_steps", self.optimizer.warmup_steps, 0),
        ):
            if value < least:
                raise UserError(f"training.{name}={value} must be at least {least}.")
        check_threads(self.threads)
        for step in checkpoint.at:
            if not 1 <= step <= self.steps:
                raise UserError(
                    f"training.checkpoint.at={list(checkpoint.at)} has {step}, which is not between 1 and "
                    f"training.steps={self.steps}; drop it."
                )
        if checkpoint.keep_last < 2:
            raise UserError(
                f"training.checkpoint.keep_last={checkpoint.keep_last} must be at least 2: one is left when the newest "
                "is damaged."
            )
        keep, intervals = checkpoint.keep_every, (checkpoint.every, self.evaluate_every)
        if keep and not any(every and keep % every == 0 for every in intervals):
            raise UserError(
                f"training.checkpoint.keep_every={keep} must be a multiple of training.checkpoint.every="
                f"{checkpoint.every} (or of training.evaluate_every={self.evaluate_every}), so that a checkpoint is "
                "written at each of those steps."
            )
        for name, asked in (("compile=true", self.compile), ("capture=true", self.capture.lower() == "true")):
            if self.shard and asked:
                raise UserError(f"training.shard=true and training.{name} do not go together; drop one of them.")
        if self.shard and self.optimizer.name == MuonConfig.name:
            raise UserError(
                "training.shard=true keeps a share of each matrix in a process, and training/optimizer=muon needs "
                "all of it; set training.shard=false or training/optimizer=adamw."
            )
        one_of("training.precision", self.precision, PRECISIONS)
        one_of("training.reduce_precision", self.reduce_precision, REDUCE_PRECISIONS)
        one_of("training.matmul_precision", self.matmul_precision, MATMUL_PRECISIONS)
        one_of("training.channels_last", self.channels_last.lower(), LAYOUTS)
        one_of("training.capture", self.capture.lower(), CAPTURES)
        one_of("training.logging.wandb", self.logging.wandb, MODES)


@dataclass
class RunConfig:
    """What a track's configuration builds on; it adds `task`, `model`, `sampling` and `evaluation`."""

    track: str = MISSING
    """What is trained: robot (policies) or images. Each track has its own tasks, models and recipes."""
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    acceleration: AccelerationConfig = field(default_factory=AccelerationConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    init_from: str | None = None
    """Begin with the averaged weights of a run (its last checkpoint), of the folder of a checkpoint, or of a policy
    that was saved to be shared, instead of random ones: fine-tuning, on these or other data."""
    plugins: list[str] = field(default_factory=list)
    """Modules to import first, which register choices of their own; looked for in the current folder too."""
    label: str = "plain"
    """Names the run directory; each recipe sets its own."""
    method: str = "baseline"
    """Names the run directory too; method=NAME sets it with the settings of that method."""
    seed: int = 42
    """Of the first weights, the order of the data, and the noise and times of training."""
    run_dir: str = "runs/${task.name}-${label}-${method}-${model.name}-seed${seed}"
    """Folder of the run; ${key} stands for the value of that setting."""

    def check_distillation(self) -> None:
        """Raise UserError for settings of a lesson that do not go together, or that it leaves without effect."""
        self.distillation.check()
        taken = self.acceleration
        parts = (("noise", taken.noise, NoiseConfig), ("path", taken.path, PathConfig))
        for name, chosen, plain in (*parts, ("timesteps", taken.timesteps, TimestepsConfig)):
            if self.distillation.teacher and type(chosen) is not plain:
                raise UserError(
                    f"acceleration.{name}.name={chosen.name} has no effect with distillation.teacher="
                    f"{self.distillation.teacher}, whose lesson draws times and noise; choose "
                    f"acceleration/{name}={plain.name}."
                )

    def check_scores(self, *, scored: bool, overlap: bool, to_score: str) -> None:
        """Raise UserError when the choice of noise could never begin, or never move a noise, in this run, or when there
        is no score that could be made while it trains.

        Args:
            scored: whether the task has a score.
            overlap: whether scores are made while the training goes on.
            to_score: settings that give it one.
        """
        training, noise = self.training, self.acceleration.noise
        evaluated = scored and 0 < training.evaluate_every < training.steps
        remedy = f"give training.evaluate_every (below training.steps), {to_score}"
        with naming("acceleration.noise"):
            noise.check_run(
                steps=training.steps,
                batch_size=training.batch_size,
                evaluated=evaluated,
                remedy=remedy,
            )
        if training.shard and noise.center == "denoiser":
            raise UserError(
                "acceleration.noise.center=denoiser asks the average for a prediction at every update, and with "
                "training.shard=true no process has the whole of it; set training.shard=false."
            )
        if overlap and not evaluated:
            raise UserError(f"evaluation.overlap=true has no score to make while this run trains; {remedy}.")
        if overlap and noise.waits_for_score:
            raise UserError(
                f"evaluation.overlap=true lets the training go on before its score is there, and "
                f"acceleration.noise.name={noise.name} waits for one (start_score); set evaluation.overlap=false, or "
                "acceleration.noise.start_score=null with a start_step."
            )
