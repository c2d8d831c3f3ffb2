"""How a trained run is sampled: its own settings, what was tuned, what is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from policy_accel.diffusion.config import SamplingConfig
from policy_accel.errors import UserError
from policy_accel.run_sampling import AS_TRAINED, AskedSampling, TunedSampling

OWN = SamplingConfig("ddim", 8)
TUNED = TunedSampling(
    500, 2, {2: {"sampler": "ddim", "times": [99, 20], "score": 0.9}, 4: {"sampler": "ddpm", "times": [99, 50, 20, 20]}}
)


def settings(asked: AskedSampling, tuned: TunedSampling | None = TUNED, own: SamplingConfig = OWN) -> SamplingConfig:
    found = asked.of_run(own, tuned)[0]
    assert own == SamplingConfig("ddim", 8) or own.times is not None, "the run's own settings stay"
    return found


def test_nothing_asked_takes_what_was_tuned_for_use() -> None:
    found, note = AskedSampling().of_run(OWN, TUNED)
    assert (found.sampler, found.times) == ("ddim", [99, 20])
    assert note == "Sampled as tuned at step 500: ddim at times [99, 20] (sampling.yaml)."
    assert AskedSampling().of_run(OWN) == (OWN, None)
    assert AskedSampling().of_run(OWN, TunedSampling(500, None, TUNED.grids)) == (OWN, None)


def test_a_number_of_steps_takes_the_grid_tuned_for_it_or_an_even_one() -> None:
    assert settings(AskedSampling(steps=4)).times == [99, 50, 20, 20]
    assert settings(AskedSampling(steps=4)).sampler == "ddpm"
    assert settings(AskedSampling(steps=3)) == SamplingConfig("ddim", 3)
    for asked in (
        AskedSampling(steps=4, untuned=True),
        AskedSampling(steps=4, spacing="trailing"),
        AskedSampling(steps=4, sampler="ddim"),
    ):
        assert asked.of_run(OWN, TUNED) == (SamplingConfig("ddim", 4), None)


def test_times_of_the_configuration_give_way_to_what_is_asked() -> None:
    own = SamplingConfig("ddpm", times=[99, 25, 50])
    assert settings(AskedSampling(steps=3), None, own) == SamplingConfig("ddpm", 3)
    assert settings(AskedSampling(spacing="leading"), None, own) == SamplingConfig("ddpm", spacing="leading")
    assert settings(AskedSampling(times=(99, 5)), None, own) == SamplingConfig("ddpm", times=[99, 5])
    assert settings(AskedSampling(times=(99, 5), sampler="ddim"), TUNED, own) == SamplingConfig("ddim", times=[99, 5])
    assert settings(AskedSampling(), None, own) == settings(AS_TRAINED, TUNED, own) == own


@pytest.mark.parametrize("beside", [{"steps": 2}, {"spacing": "leading"}])
def test_times_are_refused_beside_steps_and_spacing(beside: dict) -> None:
    name, value = next(iter(beside.items()))
    with pytest.raises(UserError, match=rf"times \[99, 25\] .*{name}={value} has no effect"):
        AskedSampling(times=[99, 25], **beside)


def test_what_was_tuned_is_kept_in_the_run(tmp_path: Path) -> None:
    assert TunedSampling.read(tmp_path) is None
    path = TUNED.write(tmp_path)
    assert path == tmp_path / "sampling.yaml"
    assert TunedSampling.read(tmp_path) == TUNED
    assert path.read_text().startswith("# How this run is sampled, as `policy-accel tune-sampling` chose.")
    TunedSampling(600, None, {}).write(tmp_path)
    assert TunedSampling.read(tmp_path) == TunedSampling(600, None, {})
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: [",
        "- 1",
        "step: 1\nuse: 2\ngrids: {}",
        "step: 1\nuse: null",
        "step: 1\nuse: null\ngrids: {2: {sampler: ddim}}",
        "step: 1\nuse: null\ngrids: {2: {sampler: ddim, times: '99'}}",
        "step: 1\nuse: null\ngrids: {2: {sampler: ddim, times: [true]}}",
        "step: 1\nuse: null\ngrids: {a: {sampler: ddim, times: [99]}}",
        "step: 1\nuse: null\ngrids: {1: {sampler: [ddim], times: [99]}}",
        "!!python/object/apply:os.getcwd []",
        "step: .inf\nuse: null\ngrids: {}",
        5000 * "[",
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "sampling.yaml").write_text(text)
    with pytest.raises(UserError, match=r"sampling\.yaml is damaged \(\w+\); remove it, or run `policy-accel tune"):
        TunedSampling.read(tmp_path)
