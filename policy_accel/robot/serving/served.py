"""A policy that a server has: it reads the requests of many clients, predicts them together and answers each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policy_accel.errors import UserError, one_line
from policy_accel.models.encoders.observation import STATE
from policy_accel.policy.controller import Policy
from policy_accel.policy.observations import as_tensors
from policy_accel.policy.planner import Planner, chunk_noise
from policy_accel.robot.serving.figures import Figures
from policy_accel.robot.serving.messages import ClientRequest, encode, read_request
from policy_accel.run_sampling import sampling_record

LONGEST = 500
"""Characters of a refusal; it may quote what a client sent."""
UNREADABLE = (ValueError, TypeError, OverflowError, RecursionError)
"""What NumPy and nested maps raise for an observation that no robot sends."""


@dataclass
class Connection:
    """What a server remembers of a client: seed of its episode, and the number of its next chunk."""

    seed: int = 0
    chunk: int = 0


@dataclass
class Job:
    """A message that waits for its answer: bytes, or the sentence of a refusal."""

    served: ServedPolicy
    connection: Connection
    message: bytes
    answer: Future[bytes | str] = field(default_factory=Future)
    arrived: float = field(default_factory=time.perf_counter)


class ServedPolicy:
    """One policy that a server has.

    Args:
        name: by which clients know it.
        policy: loaded.
        max_batch: requests that are predicted at once.

    Attributes:
        about: what clients are told of the server beside the policy.
        figures: of its requests.
    """

    def __init__(self, name: str, policy: Policy, max_batch: int) -> None:
        self.name, self.max_batch, self.figures = name, max_batch, Figures()
        self.about: dict[str, Any] = {}
        self.run, self.layout, self.noise_seed = policy.run, policy.layout, policy.noise_seed
        self.device, self.config = policy.device, policy.run.config.policy
        self.planner = Planner(self.run.policy, self.run.sampler, self.run.config.training)

    def metadata(self) -> dict[str, Any]:
        """What a client is told first."""
        network = self.run.policy
        return {
            **self.about,
            "policy": self.name,
            "step": self.run.step,
            "observation": {
                "entries": list(self.layout.entries),
                "numbers": network.input_dim,
                "images": {self.layout.entry(name)[0]: list(shape) for name, shape in network.images.items()},
            },
            "n_obs_steps": self.config.n_obs_steps,
            "n_action_steps": self.config.n_action_steps,
            "horizon": self.config.horizon - self.config.n_obs_steps + 1,
            "action_dim": network.executed_dim,
            **sampling_record(self.run.sampler.config),
            "network_evaluations": self.run.sampler.network_evaluations(),
        }

    def window_bytes(self) -> int:
        """Bytes of the observations that one request needs, numbers as float64 and pictures as uint8."""
        network = self.run.policy
        pixels = sum(int(np.prod(shape)) for shape in network.images.values())
        return self.config.n_obs_steps * (8 * network.input_dim + pixels)

    def warm_up(self) -> None:
        """Predict once, so that the first client does not wait for what is made once."""
        network = self.run.policy
        blank = {STATE: np.zeros(network.input_dim)}
        blank |= {name: np.zeros(shape, np.uint8) for name, shape in network.images.items()}
        self.actions([[blank] * self.config.n_obs_steps], [0], [0])

    def answer(self, jobs: Sequence[Job]) -> None:
        """Answer all jobs, each on its own: a wrong message is refused and the others are predicted."""
        taken: list[tuple[Job, ClientRequest, list[dict[str, np.ndarray]]]] = []
        for job in jobs:
            self.figures.requests += 1
            try:
                request = read_request(job.message)
                if request.reset:
                    job.connection.seed, job.connection.chunk = request.seed or 0, 0
                    self._send(job, {"reset": job.connection.seed})
                elif not request.observations:
                    self._send(job, self.metadata())
                else:
                    taken.append((job, request, self._window(request.observations)))
            except UserError as error:
                self._refuse(job, str(error))
        for start in range(0, len(taken), self.max_batch):
            self._predict(taken[start : start + self.max_batch])

    def _predict(self, taken: Sequence[tuple[Job, ClientRequest, list[dict[str, np.ndarray]]]]) -> None:
        for job, request, _ in taken:
            if request.seed is not None and request.seed != job.connection.seed:
                job.connection.seed, job.connection.chunk = request.seed, 0
            if request.chunk is not None:
                job.connection.chunk = request.chunk
        connections = [job.connection for job, _, _ in taken]
        began = time.perf_counter()
        actions = self.actions(
            [window for _, _, window in taken],
            [connection.seed for connection in connections],
            [connection.chunk for connection in connections],
        )
        seconds = time.perf_counter() - began
        self.figures.batch(len(taken), seconds)
        for (job, request, _), chunk in zip(taken, actions, strict=True):
            if not np.isfinite(chunk).all():
                self._refuse(job, "the policy returned a NaN or infinite action; its weights may be damaged.")
                continue
            answer = {
                "actions": chunk if request.horizon else chunk[: self.config.n_action_steps],
                "seed": job.connection.seed,
                "chunk": job.connection.chunk,
                "server_timing": {
                    "infer_ms": 1000 * seconds,
                    "wait_ms": 1000 * (began - job.arrived),
                    "batch": len(taken),
                },
            }
            job.connection.chunk += 1
            self.figures.waits.append(time.perf_counter() - job.arrived)
            self._send(job, answer)

    @torch.no_grad()
    def actions(
        self, windows: Sequence[Sequence[dict[str, np.ndarray]]], seeds: Sequence[int], chunks: Sequence[int]
    ) -> np.ndarray:
        """All predicted actions [B, horizon - n_obs_steps + 1, A] of B windows, the first for the time of the newest
        observation; a row does not depend on the others but for rounding."""
        policy = self.run.policy
        noise = chunk_noise(policy.noise_shape(self.run.sampler), self.noise_seed, seeds, chunks)
        rows = [*range(len(windows)), *[0] * (batch_size(len(windows)) - len(windows))]
        windows, noise = [windows[row] for row in rows], noise[rows]
        trajectory: Tensor = self.planner(as_tensors(windows, self.device, policy.resized), noise)
        ahead = trajectory[: len(seeds), self.config.n_obs_steps - 1 :, : policy.action_dim]
        return policy.decoded(ahead).cpu().numpy()

    def _window(self, observations: list[Any]) -> list[dict[str, np.ndarray]]:
        """The observations as the policy takes them; where there are fewer, the oldest stands for those before it."""
        network, steps = self.run.policy, self.config.n_obs_steps
        if len(observations) > steps:
            raise UserError(f"'observations' has {len(observations)} entries; this policy takes the {steps} newest.")
        try:
            taken = [self.layout.taken(row, network.input_dim, network.images) for row in observations]
        except UNREADABLE as error:
            raise UserError(f"an observation cannot be read ({one_line(error)}); send arrays.") from error
        return [*[taken[0]] * (steps - len(taken)), *taken]

    def _send(self, job: Job, answer: dict[str, Any]) -> None:
        self.figures.answers += 1
        job.answer.set_result(encode(answer))

    def _refuse(self, job: Job, sentence: str) -> None:
        self.figures.refusals += 1
        job.answer.set_result(sentence if len(sentence) <= LONGEST else f"{sentence[:LONGEST]} ...")

    def fail(self, job: Job, error: Exception) -> None:
        """Tell the client of a job that this server could not answer it, unless it is answered."""
        if not job.answer.done():
            self.figures.failures += 1
            job.answer.set_result(f"the server could not answer: {type(error).__name__}: {one_line(error)}"[:LONGEST])


def batch_size(rows: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24 and so on: graphs and libraries keep something for each size."""
    power = 1 << (rows - 1).bit_length()
    return power * 3 // 4 if rows <= power * 3 // 4 else power
