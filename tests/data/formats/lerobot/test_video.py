"""Frames are found, or refused, whatever clock the videos run by: never one of another episode."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from policy_accel.data.formats.lerobot.reader import LeRobotReader
from policy_accel.data.formats.lerobot.video import frame_rate, read_timeline
from policy_accel.data.formats.lerobot.writer import write_lerobot
from policy_accel.data.inspect import inspect
from policy_accel.data.readers import open_episodes, read_episodes
from policy_accel.errors import UserError

KEY, NAME = "images.top", "observation.images.top"
LENGTHS = (20, 30, 25)


def mux(path, frames, times):
    """An mp4 without loss whose frames are shown at `times` [F], in seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=1000, options={"qp": "0", "g": "8", "bf": "0"})
        stream.pix_fmt, stream.height, stream.width = "rgb24", frames.shape[1], frames.shape[2]
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture
def videos(lerobot):
    def videos(version, change=None, seconds=lambda n: np.arange(n) / 10, root=None):
        """A set whose frames are `change`d, video by video, and shown at `seconds(frames)`."""
        made = lerobot(version, LENGTHS, cameras=("top",), root=root)
        at = 0
        for path in sorted(made.root.glob("videos/**/*.mp4")):
            rows = LENGTHS[at : at + 1] if version == "v2.1" or at == 0 else LENGTHS[at:]
            frames = np.concatenate([made.episode(NAME, at + n) for n in range(len(rows))])
            frames = frames if change is None else change(at, frames)
            mux(path, frames, seconds(len(frames)))
            at += len(rows)
        return made

    return videos


def assert_frames(reader, made, episodes=range(3)):
    for episode in episodes:
        np.testing.assert_array_equal(reader.read(episode, [KEY])[KEY], made.episode(NAME, episode))
        last = made.lengths[episode]
        np.testing.assert_array_equal(reader.read(episode, [KEY], last - 2)[KEY], made.episode(NAME, episode)[-2:])


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("rate", [3, 7.5, 9.5, 30, 60])
def test_another_rate_with_a_frame_for_each_step(videos, version, rate):
    made = videos(version, seconds=lambda n: np.arange(n) / rate)
    with LeRobotReader(made.root) as reader:
        assert_frames(reader, made)
        assert " frames per second, and info.json says fps 10; with a frame for each step" in reader.remarks[0]
        assert f"runs at {rate:g}"[:8] in reader.remarks[0]
        assert not reader.faults
        assert reader.remarks[0] in inspect(made.root).remarks


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize(
    "seconds",
    [
        lambda n: 0.5 + np.arange(n) / 10,
        lambda n: np.arange(n) / 10 + np.random.default_rng(0).uniform(0, 0.02, n),
        lambda n: np.cumsum(np.random.default_rng(0).uniform(0.02, 0.4, n)),
        lambda n: np.arange(n) * 1.003 / 10,
    ],
    ids=["begins later", "trembles", "has any times", "drifts"],
)
def test_clocks_that_are_no_exact_ones(videos, version, seconds):
    made = videos(version, seconds=seconds)
    with LeRobotReader(made.root) as reader:
        assert_frames(reader, made)
        assert not reader.faults


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("rate", [5, 20])
def test_another_rate_and_another_number_of_frames(videos, version, rate):
    """As a camera that recorded on its own clock: of 20 frames a second every second one belongs to a step."""
    made = videos(
        version,
        change=lambda at, frames: np.repeat(frames, 2, 0) if rate == 20 else frames[::2],
        seconds=lambda n: np.arange(n) / rate,
    )
    with LeRobotReader(made.root) as reader:
        assert reader.read(1, ["state"])["state"].shape == (30, 3)
        assert not reader.faults
        reader.ask_for([KEY])
        assert list(reader.faults) == [0, 1, 2]
        assert f"for 20 steps in all, runs at {rate} frames per second, and info.json says fps 10" in reader.faults[0]
        with pytest.raises(UserError, match="frames for the 30 steps of the episode"):
            reader.read(1, [KEY])


@pytest.mark.parametrize("missing", [1, 2])
def test_a_video_that_ends_early(videos, missing):
    made = videos("v2.1", change=lambda at, frames: frames[:-missing] if at == 1 else frames)
    with open_episodes(made.root) as reader:
        assert reader.remarks == [
            f"{NAME}: episode 1's video lacks {missing} of the frames; the last picture is shown again."
        ]
        assert_frames(reader, made, (0, 2))
        read, wanted = reader.read(1, [KEY])[KEY], made.episode(NAME, 1)
        np.testing.assert_array_equal(read[:-missing], wanted[:-missing])
        np.testing.assert_array_equal(read[-missing:], wanted[-missing - 1 : -missing].repeat(missing, 0))
        np.testing.assert_array_equal(reader.read(1, [KEY], 29)[KEY], read[29:])


def test_a_video_of_nearly_the_rate_that_ends_early(videos):
    made = videos(
        "v2.1", change=lambda at, frames: frames[:-1] if at == 1 else frames, seconds=lambda n: np.arange(n) / 9.93
    )
    with open_episodes(made.root) as reader:
        assert_frames(reader, made, (0, 2))
        np.testing.assert_array_equal(reader.read(1, [KEY])[KEY][:-1], made.episode(NAME, 1)[:-1])
        assert "episode 1's video lacks 1 of the frames" in reader.remarks[-1]


def test_a_clock_at_which_other_frames_are_shown_is_not_believed(videos):
    """At twice the rate every second frame of the first episode is shown when a step is due."""
    made = videos("v3.0", change=lambda at, frames: frames[:-1] if at else frames, seconds=lambda n: np.arange(n) / 20)
    with LeRobotReader(made.root) as reader:
        reader.ask_for([KEY])
        assert list(reader.faults) == [1, 2]


def test_a_video_that_ends_late(videos):
    made = videos("v2.1", change=lambda at, frames: np.concatenate([frames, frames[:1]]) if at == 1 else frames)
    with open_episodes(made.root) as reader:
        assert_frames(reader, made)
        assert "episode 1's video has 1 frames too many; the last are not used." in reader.remarks[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        lambda path: path.write_bytes(b"no video"),
        lambda path: mux(path, np.zeros((20, 16, 24, 3), np.uint8), np.arange(20) / 10),
    ],
    ids=["missing", "cut off", "something else", "too short"],
)
def test_one_bad_video_is_a_fault_of_its_episode(videos, change):
    made = videos("v2.1")
    change(sorted(made.root.glob("videos/**/episode_000001.mp4"))[0])
    with pytest.raises(UserError, match=r"episode 1: .*episode_000001\.mp4.*skip_bad_episodes=true \(1 of 3\)"):
        open_episodes(made.root)
    assert read_episodes(made.root, ["state"]).steps == 75  # its numbers are sound
    with open_episodes(made.root, ["state", KEY], skip_bad_episodes=True) as reader:
        np.testing.assert_array_equal(reader.read(1, [KEY])[KEY], made.episode(NAME, 2))
        assert "episode 1 is left out" in reader.remarks[-1]


@pytest.mark.parametrize(
    ("codec", "options"), [("libx264", {"bf": "3", "crf": "5"}), ("mpeg4", {"bf": "2", "b": "4000000"})]
)
def test_frames_that_are_stored_in_another_order_are_found_in_any(videos, codec, options):
    """A key frame may be stored before B-frames that are shown before it; a seek finds it for these in MPEG-4."""
    made = videos("v3.0")
    path = sorted(made.root.glob("videos/**/*.mp4"))[1]
    grey = np.arange(55, dtype=np.uint8) * 4
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.pix_fmt, stream.height, stream.width = "yuv420p", 16, 24
        for level in grey:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((16, 24, 3), level), format="rgb24")))
        container.mux(stream.encode())
    with LeRobotReader(made.root) as reader:
        for step in range(54, -1, -1):  # each one by a seek
            episode, start = (1, step) if step < 30 else (2, step - 30)
            found = reader.read(episode, [KEY], start, start + 1)[KEY]
            assert abs(float(found.mean()) - grey[step]) < 1.9


def test_a_rate_from_times_that_are_rounded(tmp_path):
    mux(tmp_path / "x.mp4", np.zeros((40, 16, 24, 3), np.uint8), np.round(np.arange(40) / 30, 3))
    assert abs(frame_rate(read_timeline(tmp_path / "x.mp4")[1], 1) / 30 - 1) < 0.001


def test_v30_video_that_is_cut_short(videos):
    made = videos("v3.0", change=lambda at, frames: frames[:-10])
    with LeRobotReader(made.root) as reader:
        reader.ask_for([KEY])
        assert list(reader.faults) == [0, 2]
        assert_frames(reader, made, [1])


def change_times(made, values):
    path = next(made.root.glob("meta/episodes/*/*.parquet"))
    table = pq.read_table(path)
    name = f"videos/{NAME}/from_timestamp"
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, [values]), path)


def test_v30_places_by_the_clock_where_frames_of_removed_episodes_are_left(videos):
    made = videos(
        "v3.0", change=lambda at, frames: np.concatenate([frames[:30], frames[:7], frames[30:]]) if at else frames
    )
    change_times(made, [0.0, 0.0, 3.7])
    with LeRobotReader(made.root) as reader:
        assert_frames(reader, made)
        assert not reader.remarks


@pytest.mark.parametrize("times", [[0.0, 0.0, 0.0], [0.0, 0.0, 2.05], [0.0, 1.0, 4.0], [9.0, 9.0, 99.0]])
def test_v30_times_that_cannot_be(videos, tmp_path, times):
    made = videos("v3.0")
    change_times(made, times)
    with LeRobotReader(made.root) as reader:  # as many frames as steps: by the order
        assert_frames(reader, made)
        assert "is not cut where from_timestamp says" in reader.remarks[0]
    made = videos("v3.0", change=lambda at, frames: frames[:-1] if at else frames, root=tmp_path / "shorter")
    change_times(made, times)
    with LeRobotReader(made.root) as reader:
        reader.ask_for([KEY])
        # An episode that begins when a frame is shown is believed.
        assert {1, 2} - set(reader.faults) == ({1} if times[1] == 1 else set())


def test_a_frame_that_was_dropped_within_an_episode(videos):
    made = videos(
        "v2.1",
        change=lambda at, frames: np.delete(frames, 10, 0) if at == 1 else frames,
        seconds=lambda n: np.delete(np.arange(30), 10) / 10 if n == 29 else np.arange(n) / 10,
    )
    with LeRobotReader(made.root) as reader:
        reader.ask_for([KEY])
        assert list(reader.faults) == [1]


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_all_videos_missing(videos, tmp_path, version):
    made = videos(version)
    count = len([path.unlink() for path in made.root.glob("videos/**/*.mp4")])
    with open_episodes(made.root) as reader:
        assert KEY not in reader.features
        assert (
            f"left out: '{KEY}', since its videos are missing, {count} in all, the first videos/" in reader.remarks[0]
        )
        with pytest.raises(UserError, match=rf"'{KEY}' cannot be used: its videos are missing, {count} in all"):
            reader.ask_for([KEY])
        write_lerobot(tmp_path / "copy", reader)
    np.testing.assert_array_equal(read_episodes(tmp_path / "copy").arrays["state"], made.arrays["observation.state"])
    assert any("videos are missing" in remark for remark in inspect(made.root).remarks)
