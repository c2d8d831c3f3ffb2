import numpy as np
import pytest

from policy_accel.data import Episodes
from policy_accel.errors import UserError


def arrays(steps=10):
    rng = np.random.default_rng(0)
    return {"action": rng.normal(size=(steps, 2)), "observation": rng.normal(size=(steps, 3)).astype(np.float32)}


def test_sizes():
    episodes = Episodes(arrays(), np.array([3, 4, 10], dtype=np.int32), "here")
    assert len(episodes) == 3
    assert episodes.steps == 10
    assert episodes.starts.tolist() == [0, 3, 4]
    assert episodes.lengths.tolist() == [3, 1, 6]
    assert episodes.episode_ends.dtype == np.int64


def test_lists_become_arrays():
    episodes = Episodes({"action": [[1.0], [2.0]]}, [2])
    assert episodes.arrays["action"].shape == (2, 1)


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ([3, 3, 10], ["episode 1 has no step; take it out"]),
        ([3, 8, 7, 10], ["not increasing", "episode_ends[2] is 7 after 8"]),
        ([0, 10], ["episode 0 has no step"]),
        ([-1, 10], ["episode_ends[0] is -1; store the cumulative end"]),
        ([], ["episode_ends has shape (0,)", "at least one"]),
        ([[5, 10]], ["episode_ends has shape (1, 2)"]),
        ([2.5, 10.0], ["float64", "not whole steps", "int64"]),
        ([3, 12], ["goes to step 12, past the data, which has 10 steps", "copy or record it again"]),
        ([3, 9], ["stops at step 9, but the data has other rows (data/action 10, ", "the end of the last episode"]),
    ],
)
def test_bad_ends(ends, words):
    with pytest.raises(UserError) as error:
        Episodes(arrays(), np.array(ends), "demo.zarr")
    for word in ["demo.zarr: ", *words]:
        assert word in str(error.value)


def test_differing_lengths():
    data = {"action": np.zeros((100, 2)), "observation": np.zeros((99, 3))}
    with pytest.raises(UserError, match=r"demo: .*other rows \(data/action 100, data/observation 99.*one row per step"):
        Episodes(data, np.array([98]), "demo")
    with pytest.raises(
        UserError, match=r"demo: data/observation has 99 rows and the episodes have 100 steps; it needs one"
    ):
        Episodes(data, np.array([100]), "demo")


@pytest.mark.parametrize(
    ("value", "name"), [(np.nan, "NaN"), (np.inf, "Inf"), (-np.inf, "Inf"), (-7.1e36, r"-7\.1e\+36")]
)
@pytest.mark.parametrize(("step", "episode", "own_step"), [(0, 0, 0), (2, 0, 2), (3, 1, 0), (9, 2, 5)])
def test_non_finite(value, name, step, episode, own_step):
    data = arrays()
    data["observation"][step, 1] = value
    expected = rf"demo: data/observation holds {name} at step {step} \(episode {episode}, its step {own_step}\); repair"
    with pytest.raises(UserError, match=expected):
        Episodes(data, np.array([3, 4, 10]), "demo")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array(["a"] * 10), "data/extra holds <U1, which are not numbers"),
        (np.zeros((10, 0)), "data/extra holds no numbers ([0] a step)"),
        (np.float64(3), "data/extra is a single value; its first axis must be time"),
    ],
)
def test_arrays_of_no_use(values, words):
    with pytest.raises(UserError) as error:
        Episodes({**arrays(), "extra": values}, np.array([10]))
    assert str(error.value).startswith("episodes: ")
    assert words in str(error.value)


def test_no_arrays():
    with pytest.raises(UserError, match="no array of data; give at least one"):
        Episodes({}, np.array([10]))
