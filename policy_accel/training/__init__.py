"""The one training core, for every track."""

from policy_accel.training.loop import Trained, TrainingConfig, train
from policy_accel.training.task import Batch, Task, denoising_loss

__all__ = ["Batch", "Task", "Trained", "TrainingConfig", "denoising_loss", "train"]
