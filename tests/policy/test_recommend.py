from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.data import write_zarr

from policy_accel.cli import main
from policy_accel.data import Episodes
from policy_accel.images.track import IMAGES
from policy_accel.policy.track import ROBOT

RECORDS = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,400 chunks on one of two sides, whose observation tells how likely: it comes again, as in task=two_modes."""
    generator = np.random.default_rng(0)
    observed = generator.standard_normal((1400, 2)).astype("f4")
    side = np.where(generator.random(1400) < 1 / (1 + np.exp(-3 * observed[:, 0])), 1.0, -1.0)
    actions = side[:, None, None] * np.sin(np.linspace(0, np.pi, 16))[:, None] * np.ones((1, 1, 2))
    arrays = {"observation": np.repeat(observed, 16, axis=0), "action": actions.reshape(-1, 2).astype("f4")}
    path = tmp_path_factory.mktemp("toy") / "toy.zarr.zip"
    write_zarr(path, Episodes(arrays, 16 * np.arange(1, 1401)))
    return path


def settings(data: Path, *more: str) -> list[str]:
    return ["recipe=two_modes", f"task.data={data}", "method=recommended", *more]


def test_groups_where_observations_come_again_and_evaluations_are_few(toy: Path) -> None:
    said: list[str] = []
    config = ROBOT.config(settings(toy, "sampling.steps=2"), report=said.append)
    assert (config.method, config.acceleration.noise.name) == ("immiscible_groups", "assignment_in_groups")
    assert config.run_dir == "runs/two_modes-two_modes-immiscible_groups-mlp-seed42"
    assert said[0].startswith("method=recommended: immiscible_groups, since observations come again (groups of like")
    assert config == ROBOT.config(
        [*settings(toy, "sampling.steps=2")[:2], "method=immiscible_groups", "sampling.steps=2"]
    )


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["sampling.steps=3"], "with 3 evaluations a chunk no method was found that beats it"),
        (["sampling.steps=2", "diffusion.family=flow"], "nothing was measured for another process than ddpm"),
        (["sampling.steps=2", "policy.conditioning=inpainting"], "nothing was measured for pictures or in-painting"),
    ],
)
def test_the_baseline_without_a_look_at_the_data(more: list[str], why: str) -> None:
    said: list[str] = []
    config = ROBOT.config(settings(Path("not-there.zarr"), *more), report=said.append)
    assert config.method == "baseline"
    assert f"method=recommended: baseline, since {why} (docs/results/records.md#" in said[0]


def test_the_baseline_where_observations_are_unique() -> None:
    said: list[str] = []
    config = ROBOT.config(["method=recommended", "sampling.steps=1"], report=said.append)
    assert config.method == "baseline"
    assert "since observations do not come again (groups of like ones reach over 23 episodes" in said[0]


def test_the_record_is_there(toy: Path) -> None:
    said: list[str] = []
    for more in (["sampling.steps=2"], ["sampling.steps=8"]):
        ROBOT.config(settings(toy, *more), report=said.append)
    page = (RECORDS / "docs/results/records.md").read_text()
    for line in said:
        anchor = line.rsplit("docs/results/records.md#", 1)[1].rstrip(")")
        assert f"## {anchor}\n" in page


def test_images_have_the_baseline() -> None:
    said: list[str] = []
    config = IMAGES.config(["recipe=images_demo", "method=recommended"], report=said.append)
    assert config.method == "baseline"
    path = said[0].rsplit("(", 1)[1].rstrip(")")
    assert (RECORDS / path).is_file()


def test_a_run_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--print-config", "method=recommended"]) == 0
    printed = capsys.readouterr()
    assert "method: baseline\n" in printed.out
    assert "method=recommended: baseline, since with 8 evaluations" in printed.err


def test_missing_data_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "method=recommended", "sampling.steps=1", "task.data=not-there.zarr"]) == 2
    assert "not-there.zarr" in capsys.readouterr().err
