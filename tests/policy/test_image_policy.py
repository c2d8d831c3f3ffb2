from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.batches import batch_of
from support.data import write_zarr
from support.simulated_cuda import CUDA, SimulatedCuda
from torch.utils.flop_counter import FlopCounterMode

from policy_accel import Policy
from policy_accel.data import Episodes
from policy_accel.errors import UserError
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.evaluate import PolicyEvaluator
from policy_accel.policy.policy import DiffusionPolicy
from policy_accel.policy.run import build_sampler
from policy_accel.policy.track import ROBOT
from policy_accel.training.build import build_update
from policy_accel.training.checkpoint import load_checkpoint
from policy_accel.training.loss import denoising_loss
from policy_accel.training.randomness import named_generator

Build = Callable[..., RobotConfig]
SIZE, CROP = 96, 64


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up Push-T demonstrations in which every frame differs in every pixel."""
    generator = np.random.default_rng(0)
    lengths = np.array([25, 20, 30])
    steps = int(lengths.sum())
    arrays = {
        "img": generator.integers(0, 256, (steps, SIZE, SIZE, 3), dtype=np.uint8),
        "state": generator.uniform(0, 512, (steps, 5)).astype(np.float32),
        "action": generator.uniform(0, 512, (steps, 2)).astype(np.float32),
    }
    path = tmp_path_factory.mktemp("filmed") / "filmed.zarr.zip"
    write_zarr(path, Episodes(arrays, lengths.cumsum()))
    return path


@pytest.fixture
def build(filmed: Path, tmp_path: Path) -> Build:
    def configure(*overrides: str) -> RobotConfig:
        return ROBOT.config(
            [
                "task=pusht_image",
                "model=unet",
                f"task.data={filmed}",
                "task.val_ratio=0.34",
                "encoder.resnet.width=16",
                f"encoder.crop={CROP}",
                "model.down_dims=[8,16]",
                "model.kernel_size=3",
                "model.step_embedding_dim=8",
                "training.device=cpu",
                "training.steps=4",
                "training.batch_size=4",
                "training.validate_every=2",
                "training.logging.every=1",
                "evaluation.episodes=0",
                f"run_dir={tmp_path / 'run'}",
                *overrides,
            ]
        )

    return configure


def windows_of(picture: np.ndarray, cut: np.ndarray) -> bool:
    """Whether `cut` [c, c, 3] is a window of `picture` [H, W, 3]."""
    views = np.lib.stride_tricks.sliding_window_view(picture, cut.shape)[:, :, 0]
    return bool((views[..., 0, :3, :] == cut[0, :3]).all((2, 3)).any()) and any(
        np.array_equal(views[y, x], cut) for y, x in np.argwhere((views[..., 0, :3, :] == cut[0, :3]).all((2, 3)))
    )


def test_training_frames_are_random_windows_of_the_observed_steps(build: Build) -> None:
    task = ROBOT.build(build())
    indices = torch.tensor([3, 11, 3])
    batch = batch_of(task, indices, named_generator(0, "batch"))
    again = batch_of(task, indices, named_generator(0, "batch"))
    condition = batch.condition
    assert isinstance(condition, dict)
    assert isinstance(again.condition, dict)
    assert condition["img"].shape == (3, 2, CROP, CROP, 3)
    assert condition["img"].dtype == torch.uint8
    assert torch.equal(condition["img"], again.condition["img"])
    assert task.store is not None
    frames = task.store.frames["img"].numpy()
    for row, window in enumerate(indices.tolist()):
        for step in range(2):
            assert windows_of(frames[task.train.indices[window, step]], condition["img"][row, step].numpy())
    assert not torch.equal(condition["img"][0], condition["img"][2])  # the same window, cut elsewhere
    torch.testing.assert_close(condition["state"], task.observations[task.train.indices[indices, :2]])


AUGMENTED = [f"encoder.augmentation.{name}=0.4" for name in ("brightness", "contrast", "saturation", "hue")]
SHIFTED = ["encoder.crop=null", "encoder.augmentation.shift=4"]


def test_training_frames_are_augmented_alike_within_a_window(build: Build) -> None:
    """The frames of the window that begins before its episode are the first frame twice."""
    plain, changed = (ROBOT.build(build(*more)) for more in (["encoder.crop=null"], [*SHIFTED, *AUGMENTED]))
    indices = torch.tensor([0, 0, 3])
    assert plain.train.indices[0, 0] == plain.train.indices[0, 1]
    whole, found, again = (
        batch_of(task, indices, named_generator(0, "batch")).condition for task in (plain, changed, changed)
    )
    assert isinstance(whole, dict)
    assert isinstance(found, dict)
    assert isinstance(again, dict)
    assert torch.equal(found["img"], again["img"])
    assert torch.equal(found["img"][0, 0], found["img"][0, 1])
    assert not torch.equal(found["img"][0], found["img"][1])
    for row in range(3):
        assert not torch.equal(found["img"][row], whole["img"][row])
    (shifts,) = (changed.draw(3, named_generator(0, "batch"))[name] for name in ("[shift]",))
    down, right = shifts[2, 0].tolist()
    alone = ROBOT.build(build(*SHIFTED))
    moved = batch_of(alone, indices, named_generator(0, "batch")).condition
    assert isinstance(moved, dict)
    inner, shown = slice(10, 80), (slice(10 + down, 80 + down), slice(10 + right, 80 + right))
    assert torch.equal(moved["img"][2][:, shown[0], shown[1]], whole["img"][2][:, inner, inner])


@pytest.mark.parametrize("more", [[], [*SHIFTED, *AUGMENTED]], ids=["plain", "augmented"])
def test_validation_frames_are_whole_and_not_random(build: Build, more: list[str]) -> None:
    task = ROBOT.build(build(*more))
    batch = task.validation_batch(torch.tensor([0, 5]))
    assert isinstance(batch.condition, dict)
    assert task.validation is not None
    assert task.store is not None
    steps = task.validation.indices[[0, 5], :2]
    assert torch.equal(batch.condition["img"], task.store.frames["img"][steps])


def test_frames_are_encoded_once_however_many_noise_levels_train(build: Build) -> None:
    """Two thirds more rows cost the denoiser more operations and the encoder none."""
    counts = {}
    for repeats in (1, 4):
        task = ROBOT.build(build(*(["acceleration/path=shared"] if repeats == 4 else [])))
        assert task.policy.encoder is not None
        calls: list[tuple[int, ...]] = []
        task.policy.encoder.register_forward_hook(lambda *seen, calls=calls: calls.append(tuple(seen[2].shape)))
        generators = [named_generator(0, name) for name in ("batch", "time", "noise")]
        batch = batch_of(task, torch.arange(4), generators[0])
        noised = task.objective.draw(batch, *generators[1:])
        assert len(noised.x_t) == 4 * repeats
        with FlopCounterMode(display=False) as counter:
            loss = denoising_loss(task.model, batch, noised)
        assert torch.isfinite(loss)
        counts[repeats] = counter.get_total_flops()
        assert calls == [(4, 2, task.policy.encoder.output_dim)]
    assert counts[4] < 1.5 * counts[1]


def encoded(policy: DiffusionPolicy) -> list[int]:
    """Samples that the encoder of `policy` is given from now on, call by call."""
    calls: list[int] = []
    assert policy.encoder is not None
    policy.encoder.register_forward_hook(lambda module, given, features: calls.append(len(features)))
    return calls


@pytest.mark.parametrize("coupling", ["shared", "independent"])
def test_each_sample_is_encoded_once_in_pieces_validation_and_sampling(build: Build, coupling: str) -> None:
    config = build(f"acceleration/path={coupling}", "training.accumulate=2")
    task = ROBOT.build(config)
    update = build_update(task, config.training, config.seed)
    average = update.ema.model
    assert isinstance(average, DiffusionPolicy)
    learning, validating = encoded(task.policy), encoded(average)
    update(0)
    assert (learning, validating) == ([2, 2], [])
    update.validation_loss([task.validation_batch(torch.arange(5))], 0)
    assert (learning, validating) == ([2, 2], [5])
    sampler = build_sampler(config)
    assert sampler.network_evaluations() > 1
    batch = task.validation_batch(torch.arange(3))
    noise = torch.zeros(3, *average.noise_shape(sampler))
    average.plan(batch.condition, noise, sampler=sampler)  # type: ignore[arg-type]
    assert validating == [5, 3]


@pytest.mark.parametrize("more", [[], AUGMENTED], ids=["plain", "augmented"])
def test_a_run_resumes_with_the_same_bits_and_predicts_from_frames(build: Build, more: list[str]) -> None:
    def ema(config: RobotConfig) -> dict[str, torch.Tensor]:
        return load_checkpoint(Path(config.run_dir) / "checkpoints" / "last", ("ema",)).tensors["ema"]

    whole = build("training.checkpoint.every=2", f"run_dir={Path(build().run_dir).parent / 'whole'}", *more)
    ROBOT.train(whole)
    stopped = build("training.checkpoint.every=2", *more)

    def stop(updates: int) -> None:
        if updates == 3:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        ROBOT.train(stopped, after_update=stop)
    ROBOT.train(stopped)
    one, other = ema(whole), ema(stopped)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    run = ROBOT.load(Path(stopped.run_dir))
    assert run.policy.images == {"img": (SIZE, SIZE, 3)}
    generator = torch.Generator().manual_seed(0)
    observations = {
        "state": torch.rand(2, 2, 2, generator=generator) * 512,
        "img": torch.randint(0, 256, (2, 2, SIZE, SIZE, 3), generator=generator, dtype=torch.uint8),
    }
    actions = run.act(observations, torch.Generator().manual_seed(1))
    assert actions.shape == (2, 8, 2)
    dark = {**observations, "img": observations["img"] // 4}
    assert not torch.equal(run.act(dark, torch.Generator().manual_seed(1)), actions)
    edge = observations["img"].clone()
    edge[:, :, :4] = 0  # outside the centre
    assert torch.equal(run.act({**observations, "img": edge}, torch.Generator().manual_seed(1)), actions)


def test_a_policy_in_use_takes_frames_as_the_environment_gives_them(build: Build) -> None:
    config = build()
    ROBOT.train(config)
    with SimulatedCuda():
        weight = ROBOT.load(Path(config.run_dir), device=CUDA).policy.encoder.networks[0].trunk.conv1.weight
        assert weight.is_cuda
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert not weight.is_contiguous()
    policy = Policy.load(config.run_dir, device="cpu")
    generator = np.random.default_rng(0)
    frame = generator.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    agent = generator.uniform(0, 512, 2).astype(np.float32)
    run = ROBOT.load(Path(config.run_dir))
    history = {
        "state": torch.from_numpy(np.stack([agent, agent]))[None],
        "img": torch.from_numpy(np.stack([frame, frame]))[None],
    }
    noise = named_generator(0, "rollout", 0, 0)
    expected = run.act(history, noise)[0, 0]
    for picture in (frame, frame.astype(np.float32) / 255, frame.transpose(2, 0, 1)):
        policy.reset()
        assert np.array_equal(policy.act({"image": picture, "agent_pos": agent}), expected)
    for picture, said in (
        (frame - 0.5, r"picture 'img' holds -?\d+\.5, and frames are whole numbers"),
        (frame[:64, :64], r"of shape \(64, 64, 3\); this policy takes uint8 of shape \(96, 96, 3\)"),
    ):
        with pytest.raises(UserError, match=said):
            policy.act({"image": picture, "agent_pos": agent})


def test_rollouts_of_a_policy_that_sees_frames(build: Build, tmp_path: Path) -> None:
    config = build(
        "evaluation.episodes=2", "evaluation.workers=0", "evaluation.videos=0", "sampling.steps=2", "task.max_steps=10"
    )
    trained = ROBOT.train(config)
    assert trained.evaluation is not None
    assert len(trained.evaluation["episodes"]) == 2
    assert trained.evaluation["chunk_milliseconds"]["median"] > 0


def test_what_an_environment_cannot_show_is_named(build: Build, tmp_path: Path) -> None:
    task = ROBOT.build(build())
    for override, said in (
        ("task.environment_keys={img: camera}", "no observation 'camera' for task field 'img'.*agent_pos, image"),
        ("task.environment_options={observation: state}", "no picture 'img'"),
    ):
        with pytest.raises(UserError, match=said):
            PolicyEvaluator(build(override, "evaluation.episodes=1"), task.policy, tmp_path)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["task.images=[state]"], "state holds float32 .5. per step, .* task.observation instead"),
        (["task.images=[front]"], "no (key|camera) 'front'"),
        (["task.observation=['state[:2]',img]"], "'img' is no row of numbers but a picture .* in task.images"),
        (["encoder.crop=200"], "encoder.crop=200 is larger than the frames of img"),
        (["encoder.crop=null", "encoder.augmentation.shift=96"], "shift=96 is larger than the frames of img"),
        (["encoder.augmentation.shift=4"], "encoder.crop=64 is a shift already"),
        (["policy.conditioning=inpainting"], "pictures do not fit"),
        (
            ["acceleration/noise=assignment_by_condition"],
            "this task's conditions are pictures",
        ),
        (["task.images=[]"], "encoder.* has no effect with a task without pictures"),
    ],
)
def test_impossible_picture_tasks_are_refused(build: Build, overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ROBOT.build(build(*overrides))
