import os
from contextlib import closing
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from toy_environments import act

from policy_accel.errors import UserError
from policy_accel.evaluation import EnvironmentSpec, RolloutPool
from policy_accel.evaluation.environments import examine_environment
from policy_accel.evaluation.video import VideoWriter


def read(path):
    """Frames [T, H, W, 3] uint8 and the metadata of a video."""
    stream = imageio_ffmpeg.read_frames(str(path))
    metadata = next(stream)
    width, height = metadata["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in stream]), metadata


def spec(**kwargs):
    return EnvironmentSpec("toy/Walk-v0", kwargs, 20, 2, "toy_environments")


def test_a_video_reads_back(tmp_path):
    frames = np.zeros((12, 48, 64, 3), np.uint8)
    frames[:, :, :, 1] = 20 * np.arange(12)[:, None, None]
    writer = VideoWriter(tmp_path / "a.mp4", fps=5)
    for frame in frames:
        writer.add(frame)
        assert not (tmp_path / "a.mp4").exists()
    writer.finish()
    seen, metadata = read(tmp_path / "a.mp4")
    assert seen.shape == frames.shape
    assert np.abs(seen.astype(int) - frames).max() < 12
    assert metadata["fps"] == 5
    assert metadata["codec"] == "h264"
    assert "yuv420p" in metadata["pix_fmt"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_odd_sizes_are_widened(tmp_path):
    writer = VideoWriter(tmp_path / "odd.mp4", fps=5)
    writer.add(np.full((33, 47, 3), 200, np.uint8))
    writer.finish()
    seen, _ = read(tmp_path / "odd.mp4")
    assert seen.shape == (1, 34, 48, 3)
    assert np.abs(seen.astype(int) - 200).max() < 8


def test_a_discarded_video_leaves_the_older_one(tmp_path):
    (tmp_path / "a.mp4").write_text("old")
    writer = VideoWriter(tmp_path / "a.mp4", fps=5)
    writer.add(np.zeros((32, 32, 3), np.uint8))
    writer.discard()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def write_noise(writer, frames=50):
    generator = np.random.default_rng(0)
    for _ in range(frames):
        writer.add(generator.integers(0, 256, (256, 256, 3), dtype=np.uint8))
    writer.finish()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"cannot write the video .*none/a.mp4: .*No such file"):
        write_noise(VideoWriter(tmp_path / "none" / "a.mp4", fps=5))


@pytest.mark.parametrize("frames", [1, 50])
def test_a_full_disk(tmp_path, frames):
    """The partial file is a link to a device on which every write fails with ENOSPC."""
    (tmp_path / "a.mp4").write_text("old")
    (tmp_path / f".a.mp4.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"cannot write the video .*a.mp4: .*No space left on device"):
        write_noise(VideoWriter(tmp_path / "a.mp4", fps=5), frames)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_episodes_are_filmed(tmp_path, workers):
    folder = tmp_path / "new" / "videos"
    seeds = [5, 3, 11, 0]
    with closing(RolloutPool(spec(), slots=2, workers=workers)) as pool:
        plain = pool.run(act, seeds)
        filmed = pool.run(act, seeds, video_dir=folder, videos=3)
    assert [result.video for result in filmed] == ["5.mp4", "3.mp4", "11.mp4", None]
    assert sorted(path.name for path in folder.iterdir()) == ["11.mp4", "3.mp4", "5.mp4"]
    assert all(
        (a.score, a.success, a.length) == (b.score, b.success, b.length) for a, b in zip(plain, filmed, strict=True)
    )
    for result in filmed[:3]:
        seen, metadata = read(folder / result.video)
        assert seen.shape == (result.length + 1, 34, 48, 3)
        red = seen[:, 5, 5, 0].astype(int)
        assert np.abs(red - 8 * np.arange(result.length + 1)).max() < 10
        assert metadata["fps"] == 7


def test_a_crash_while_filming(tmp_path):
    trouble = {5: ("exit", 2, 1), 3: ("exit", 2, 99)}
    with closing(RolloutPool(spec(trouble=trouble, folder=str(tmp_path)), slots=2, workers=1)) as pool:
        results = pool.run(act, [5, 3], video_dir=tmp_path / "videos", videos=2)
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["5.mp4"]
    assert results[0].video == "5.mp4"
    assert results[1].video is None
    seen, _ = read(tmp_path / "videos" / "5.mp4")
    assert len(seen) == results[0].length + 1


def test_an_exception_while_filming_ends_the_encoder(tmp_path, monkeypatch):
    encoders = []
    running = []
    start = VideoWriter._start
    monkeypatch.setattr(VideoWriter, "_start", lambda *size: encoders.append(start(*size)) or encoders[-1])

    def policy(observations, seeds, chunk_index):
        running.append(sum(encoder.poll() is None for encoder in encoders))
        return act(observations, seeds, chunk_index)

    environment = spec(trouble={3: ("raise", 2, 99)}, folder=str(tmp_path))
    with closing(RolloutPool(environment, slots=2, workers=0)) as pool:
        results = pool.run(policy, [11, 3], video_dir=tmp_path / "videos", videos=2)
    assert running[:4] == [2, 2, 1, 1]
    assert [result.video for result in results] == ["11.mp4", None]
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["11.mp4"]


@pytest.mark.filterwarnings("ignore:.*render_mode='rgb_array'")
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("name", "words"), [("Inspect", "made to be filmed"), ("Blind", "no render mode rgb_array")])
def test_an_environment_that_cannot_render(tmp_path, workers, name, words):
    blind = EnvironmentSpec(f"toy/{name}-v0", {}, 2, 1, "toy_environments")
    with (
        closing(RolloutPool(blind, slots=1, workers=workers)) as pool,
        pytest.raises(UserError, match=words),
    ):
        pool.run(act, [1], video_dir=tmp_path, videos=1)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Inspect", "toy/Inspect-v0 has no render mode rgb_array"),
        ("Odd", "toy/Odd-v0 has no render mode rgb_array"),
        ("Undrawn", "toy/Undrawn-v0 has no method render"),
        ("Unasked", "toy/Unasked-v0 takes no argument render_mode"),
        ("Filmed", None),
        ("Drawn", None),
        ("Broken", None),
    ],
)
def test_what_cannot_be_filmed_is_told_beforehand(name, why):
    """gymnasium's own warnings would fail the test."""
    spec = EnvironmentSpec(f"toy/{name}-v0", {}, 2, 1, "toy_environments")
    assert examine_environment(spec).not_filmed == why


@pytest.mark.parametrize("workers", [0, 1])
def test_a_score_without_the_films_that_cannot_be_drawn(tmp_path, workers, capfd):
    broken = EnvironmentSpec("toy/Broken-v0", {}, 2, 1, "toy_environments")
    with closing(RolloutPool(broken, slots=2, workers=workers)) as pool:
        results = pool.run(act, [7, 8], video_dir=tmp_path, videos=2)
    assert [(result.error, result.video, result.length) for result in results] == [(None, None, 2)] * 2
    assert list(tmp_path.iterdir()) == []
    assert "No film of the episode of seed 8: the environment cannot render (no display)." in capfd.readouterr().err


def test_without_a_video_folder_there_is_a_score(tmp_path, capsys):
    (tmp_path / "taken").touch()
    with closing(RolloutPool(spec(), slots=1, workers=0)) as pool:
        (result,) = pool.run(act, [1], video_dir=tmp_path / "taken", videos=1)
    assert result.error is None
    assert result.video is None
    assert f"No films: cannot make the folder {tmp_path / 'taken'}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["exp:1", "data:x", "-dash", "a%03d"])
def test_the_encoder_takes_every_folder_for_a_folder(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    writer = VideoWriter(Path(name, "film.mp4"), 10)
    writer.add(np.zeros((16, 16, 3), np.uint8))
    writer.finish()
    assert read(tmp_path / name / "film.mp4")[0].shape == (1, 16, 16, 3)


@pytest.mark.parametrize("workers", [0, 1])
def test_films_from_a_camera(tmp_path, workers):
    """Only the environments that are filmed know of the camera."""
    for camera, channel in (("front", 0), ("side", 2)):
        filmed = EnvironmentSpec("toy/Filmed-v0", {}, 6, 2, "toy_environments", film_kwargs={"render_camera": camera})
        with closing(RolloutPool(filmed, slots=2, workers=workers)) as pool:
            pool.run(act, [5, 3], video_dir=tmp_path / camera, videos=1)
        colour = read(tmp_path / camera / "5.mp4")[0].mean((0, 1, 2))
        assert colour[channel] > 150
        assert np.delete(colour, channel).max() < 60


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("name", "camera", "words"),
    [
        ("Walk", "front", r"'toy/Walk-v0' cannot be filmed with render_camera='front': it does not take render_camera"),
        ("Filmed", "top", "no camera 'top'; there are front and side"),
    ],
)
def test_cameras_that_are_not_there(tmp_path, workers, name, camera, words):
    filmed = EnvironmentSpec(f"toy/{name}-v0", {}, 6, 2, "toy_environments", film_kwargs={"render_camera": camera})
    with closing(RolloutPool(filmed, slots=1, workers=workers)) as pool:
        with pytest.raises(UserError, match=words):
            pool.run(act, [1], video_dir=tmp_path, videos=1)
        assert pool.run(act, [1])[0].error is None, "without a film nobody asks"
