"""The one training core, for every track."""

from policy_accel.diffusion import Batch
from policy_accel.training.config import TrainingConfig
from policy_accel.training.loop import Trained, train
from policy_accel.training.loss import denoising_loss
from policy_accel.training.task import Task

__all__ = ["Batch", "Task", "Trained", "TrainingConfig", "denoising_loss", "train"]
