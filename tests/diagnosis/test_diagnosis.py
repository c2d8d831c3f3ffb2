from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.data import write_zarr

from policy_accel.acceleration.diagnostics import Leak, snr_coverage
from policy_accel.data import Episodes
from policy_accel.diagnosis.advice import Advice, advise, command
from policy_accel.diagnosis.data import explained_by_observation
from policy_accel.diagnosis.facts import Diagnosis, NoiseFacts
from policy_accel.diagnosis.measure import CHOICES, CONFIGURED, diagnose
from policy_accel.diagnosis.report import draw_diagnosis, table
from policy_accel.diffusion import vp_process
from policy_accel.errors import UserError
from policy_accel.policy.recurrence import Recurrence
from policy_accel.policy.track import ROBOT
from policy_accel.training.randomness import DataOrder

SMALL = ["task=pusht_state", "model=mlp", "training.batch_size=128", "training.device=cpu"]
ROWS = 384


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Circles about many places: the chunk follows from the state, which also holds numbers of no use."""
    generator = np.random.default_rng(3)
    parts: dict[str, list[NDArray[np.float32]]] = {"state": [], "action": []}
    for _ in range(25):
        centre, phase = generator.uniform(100, 400, 2), generator.uniform(0, 6.28)
        angle = phase + 0.1 * np.arange(31)
        place = centre + 60 * np.stack([np.cos(angle), np.sin(angle)], 1)
        rest = generator.normal(size=(31, 2))
        constant = np.full((31, 1), 7.0)
        parts["state"].append(np.concatenate([place, rest, constant], 1).astype(np.float32))
        parts["action"].append((place + generator.normal(size=(31, 2))).astype(np.float32))
    path = tmp_path_factory.mktemp("data") / "circles.zarr.zip"
    arrays = {key: np.concatenate(values) for key, values in parts.items()}
    write_zarr(path, Episodes(arrays, 31 * np.arange(1, 26)))
    return path


@pytest.fixture(scope="session")
def diagnosis(dataset: Path) -> Diagnosis:
    return diagnose(str(dataset), SMALL, rows=ROWS)


def by_name(diagnosis: Diagnosis, name: str) -> NoiseFacts:
    return next(facts for facts in diagnosis.noise if facts.name == name)


def test_every_choice_is_measured_or_refused_with_a_reason(diagnosis: Diagnosis) -> None:
    names = [facts.name for facts in diagnosis.noise]
    assert [*names, *diagnosis.refused] == [name for name, _ in CHOICES]
    assert diagnosis.rows == ROWS
    assert not diagnosis.refused


def test_independent_noise_is_at_chance_and_the_whole_batch_leaks(diagnosis: Diagnosis) -> None:
    independent, batch = by_name(diagnosis, "independent"), by_name(diagnosis, "whole batch")
    assert not independent.leaks
    assert independent.drop == 0.0
    assert independent.rows_moved is None
    assert batch.leaks
    assert batch.leak.score > 0.1
    assert batch.drop > 0.03
    assert batch.rows_moved is not None
    assert batch.rows_moved > 0.9
    assert batch.mean_square == pytest.approx(independent.mean_square, rel=1e-12)
    assert batch.milliseconds > 0.0


def test_an_assignment_that_waits_for_a_score_is_measured_in_force(diagnosis: Diagnosis) -> None:
    assert by_name(diagnosis, "whole batch, standardised").leaks


def test_more_candidates_are_nearer_and_shorter(diagnosis: Diagnosis) -> None:
    facts = [by_name(diagnosis, f"nearest of {k}") for k in (2, 4, 8)]
    assert [f.candidates for f in facts] == [2, 4, 8]
    assert facts[0].drop < facts[1].drop < facts[2].drop
    assert 1.0 > facts[0].mean_square > facts[1].mean_square > facts[2].mean_square
    assert by_name(diagnosis, "nearest of 2, dot").mean_square == pytest.approx(1.0, abs=0.06)


def test_distances_agree_with_a_straight_computation(dataset: Path, diagnosis: Diagnosis) -> None:
    """The batches of the run's own order, and the statistics that `train` would log of the assignment."""
    config = ROBOT.config([*SMALL, f"task.data={dataset}", "method=immiscible"])
    task = ROBOT.build(config)
    order = DataOrder(task.samples, 128, config.seed, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    before, after = [], []
    for step in range(3):
        task.objective.draw(task.batch(order.batch(step)), generator, generator)
        figures = task.objective.noise.statistics()  # type: ignore[attr-defined]
        before.append(figures["noise_distance_before"])
        after.append(figures["noise_distance_after"])
    facts = by_name(diagnosis, "whole batch")
    assert facts.distance_before == pytest.approx(np.mean(before), rel=0.02)
    assert facts.distance_after == pytest.approx(np.mean(after), rel=0.02)


def test_data_facts_agree_with_straight_computations(dataset: Path, diagnosis: Diagnosis) -> None:
    data = diagnosis.data
    task = ROBOT.build(ROBOT.config([*SMALL, f"task.data={dataset}"]))
    chunks = task.batch(torch.arange(task.samples)).x0.flatten(1).double().numpy()
    values = np.linalg.eigvalsh(np.cov(chunks.T))
    assert data.effective_dimension == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-6)
    assert data.windows == task.samples == 24 * 24
    assert (data.episodes, data.horizon, data.action_dim, data.observation_dim, data.n_obs_steps) == (24, 16, 2, 5, 2)
    assert data.action_std == pytest.approx(task.actions.numpy().std(0), rel=1e-5)
    assert data.action_rms == pytest.approx(float(task.actions.square().mean().sqrt()), rel=1e-5)
    assert (data.constant_actions, data.constant_observations) == ((), (4,))
    assert data.explained_linear is not None
    assert data.explained_linear > 0.5


def test_explained_is_of_unseen_episodes() -> None:
    generator = torch.Generator().manual_seed(0)
    episodes = torch.arange(40).repeat_interleave(50)
    observations = torch.randn(2000, 3, generator=generator)
    noise = torch.randn(2000, 2, generator=generator)
    linear, nearest = explained_by_observation(observations, observations[:, :2] + 0.5 * noise, episodes, 0)
    assert linear == pytest.approx(0.8, abs=0.02)
    assert nearest is not None
    assert 0.6 < nearest < 0.8
    # What is the same within an episode only cannot be predicted in another one, though neighbours share it.
    places = torch.randn(40, 3, generator=generator)[episodes] + 1e-3 * observations
    own = torch.randn(40, 2, generator=generator)[episodes]
    linear, nearest = explained_by_observation(places, own, episodes, 0)
    assert linear is not None
    assert nearest is not None
    assert max(linear, nearest) < 0.2
    assert explained_by_observation(observations, noise, torch.zeros(2000, dtype=torch.int64), 0) == (None, None)


def test_levels_and_floors(diagnosis: Diagnosis) -> None:
    levels = diagnosis.levels
    process = vp_process()
    table_of_times = process.log_snr.numpy()
    assert np.abs(np.subtract.outer(levels.log_snr, table_of_times)).min(1).max() == pytest.approx(0.0, abs=1e-12)
    assert levels.log_snr[0] == pytest.approx(table_of_times.max())
    assert levels.log_snr[-1] == pytest.approx(-8.0, abs=0.7)  # times are far apart at the noisy end
    assert np.diff(levels.log_snr) == pytest.approx(-(table_of_times.max() + 8.0) / 10, abs=0.8)
    own = levels.own_probability["independent"]
    assert own[0] > 0.95
    assert own[-1] == pytest.approx(1 / levels.rows, rel=0.05)
    assert sum(levels.own_probability["whole batch"]) > sum(own)
    # Given x_t all targets are x_0 times a number: (alpha / sigma)^2 for epsilon, 1 / sigma^2 for v.
    snr = np.exp(np.array(levels.log_snr))
    assert levels.floors["epsilon"] == pytest.approx(np.array(levels.floors["sample"]) * snr)
    assert levels.floors["v"] == pytest.approx(np.array(levels.floors["sample"]) * (1 + snr))


def test_schedule(diagnosis: Diagnosis) -> None:
    schedule, process = diagnosis.schedule, vp_process()
    assert schedule.coverage["uniform"] == snr_coverage(process.log_snr)
    assert schedule.coverage["curriculum, complete"].quantiles != schedule.coverage["uniform"].quantiles
    assert (schedule.start_time, schedule.evaluations) == (99.0, 8)
    assert schedule.start_snr == pytest.approx(float(process.alphas[99] / process.sigmas[99]))


def test_a_configured_choice_of_its_own_is_one_row_more_and_a_preset_is_not(dataset: Path) -> None:
    own = ["method=immiscible", "acceleration.noise.block_size=32", "diffusion.family=flow", "diffusion.target=flow"]
    found = diagnose(str(dataset), [*SMALL, *own], rows=256)
    assert found.noise[-1].name == CONFIGURED
    assert found.noise[-1].overrides == tuple(own[:2])
    assert 0.0 < found.noise[-1].drop < by_name(found, "whole batch").drop
    assert not by_name(found, "independent").leaks
    assert list(found.schedule.coverage) == ["its own"]
    assert found.schedule.start_snr == 0.0
    assert set(found.levels.floors) == {"flow", "epsilon", "sample", "v"}
    assert not any(item.rule == "untouched" for item in advise(found))
    assert found.train == (*SMALL, *own[2:], f"task.data={dataset}")


def test_small_batches_refuse_one_choice_and_padding_is_left_out(dataset: Path) -> None:
    settings = [*SMALL, "training.batch_size=16", "task.mask_padding=true"]
    found = diagnose(str(dataset), settings, rows=256)
    assert set(found.refused) == {"C2OT"}
    assert "0.0625" in found.refused["C2OT"]
    assert found.batch_size == 16
    assert "C2OT: not measured: acceleration.noise.condition_ratio=0.05" in table(found, advise(found))
    assert 128 < found.rows < 256  # windows with padding are left out


@pytest.mark.parametrize(
    ("overrides", "rows", "sentence"),
    [
        (["method=mip"], 256, "diffusion.family=mip has no noise at its first step"),
        (["policy.conditioning=inpainting"], 256, "policy.conditioning=inpainting gives the denoiser no condition"),
        (["task.max_train_episodes=2"], 256, "gives 48 training windows, and a measurement needs 64"),
        (["task.data=other.zarr"], 256, "task.data=other.zarr names the data a second time"),
        ([], 10, "--rows 10 must lie between 64 and 16384"),
        (["task.observation=['state[4:]']"], 256, "task.observation: conditions: all are equal"),
        (["diffusion.targett=v"], 256, "no key 'diffusion.targett'"),
    ],
)
def test_refusals(dataset: Path, overrides: list[str], rows: int, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence.replace("(", r"\(")):
        diagnose(str(dataset), [*SMALL, *overrides], rows=rows)


def rules(diagnosis: Diagnosis) -> dict[str, Advice]:
    return {item.rule: item for item in advise(diagnosis)}


@pytest.fixture
def calm(diagnosis: Diagnosis) -> Diagnosis:
    """A measurement to which only the rules apply that always do."""
    data = replace(diagnosis.data, constant_observations=(), explained_linear=0.5, explained_neighbours=0.4)
    schedule = replace(diagnosis.schedule, target="sample", start_snr=5e-4)
    return replace(diagnosis, noise=(by_name(diagnosis, "independent"),), data=data, schedule=schedule)


def choice(diagnosis: Diagnosis, p_value: float = 0.5, **changes: object) -> NoiseFacts:
    base = by_name(diagnosis, "whole batch")
    facts = replace(base, leak=Leak(0.4, 0.0, 0.1, p_value), divergence=0.0, distance_after=base.distance_before)
    return replace(facts, **changes)  # type: ignore[arg-type]


def test_rules_that_always_apply(calm: Diagnosis, dataset: Path) -> None:
    found = rules(calm)
    assert list(found) == ["baseline", "untouched"]
    assert found["baseline"].commands == (f"policy-accel train {' '.join(SMALL)} task.data={dataset} method=baseline",)
    assert found["untouched"].commands[0].endswith("method=clts")
    assert "Muon (recipe=fast) helped more than any of them (docs/results/push_t.md)" in found["baseline"].sentence
    assert "not told from the baseline (docs/results/methods.md)" in found["untouched"].sentence


def test_rules_on_noise(calm: Diagnosis, diagnosis: Diagnosis) -> None:
    def of(facts: NoiseFacts) -> dict[str, Advice]:
        found = rules(replace(calm, noise=(*calm.noise, facts)))
        return {name: item for name, item in found.items() if name not in ("baseline", "untouched")}

    near = 0.9 * calm.noise[0].distance_before
    leak = of(choice(diagnosis, 1e-4, distance_after=near))
    assert list(leak) == ["leak"]
    assert leak["leak"].verdict == "avoid"
    assert "whole batch (R2 40.0%, local 10.0%, p 1e-04)" in leak["leak"].sentence
    assert not leak["leak"].commands
    assert "on Push-T assignment over the whole batch ruined it (docs/results/methods.md)" in leak["leak"].sentence
    doubtful = of(choice(diagnosis, 2e-3, distance_after=near))
    assert list(doubtful) == ["doubtful"]
    assert "whole batch (p 2e-03)" in doubtful["doubtful"].sentence
    assert list(of(choice(diagnosis, 0.06, distance_after=near))) == ["safe"]
    assert of(choice(diagnosis, distance_after=near))["safe"].commands[0].endswith("method=immiscible")
    assert list(of(choice(diagnosis))) == ["idle"]
    bounded = of(choice(diagnosis, 1e-4, candidates=2, overrides=("method=immiscible_knn",)))
    assert list(bounded) == ["bounded"]
    assert bounded["bounded"].verdict == "experiment"
    assert "0.19 nats for k = 2" in bounded["bounded"].sentence
    assert list(of(choice(diagnosis, 1e-4, candidates=4))) == ["leak"]
    shrunk = of(choice(diagnosis, divergence=0.06, mean_square=0.8))
    assert list(shrunk) == ["idle", "shrink"]
    assert shrunk["idle"].sentence.endswith("; leave them out.")
    assert shrunk["shrink"].sentence.endswith("; keep it only if it beats method=baseline on your scores.")
    assert list(of(choice(diagnosis, divergence=0.04))) == ["idle"]


def test_rules_on_schedule_and_sampling(calm: Diagnosis) -> None:
    schedule = calm.schedule
    linear = snr_coverage(vp_process("linear").log_snr)

    def of(**changes: object) -> dict[str, Advice]:
        found = rules(replace(calm, schedule=replace(schedule, **changes)))  # type: ignore[arg-type]
        return {name: item for name, item in found.items() if name not in ("baseline", "untouched")}

    faint = 0.05 / calm.data.action_rms
    grid = of(start_snr=1.1 * faint, start_time=84.0, spacing="leading")
    assert list(grid) == ["grid"]
    assert grid["grid"].commands[0].endswith("sampling.spacing=trailing")
    own = of(start_snr=1.1 * faint, start_time=84.0, spacing=None)["grid"]
    assert "noise (sampling.times); start at the last time" in own.sentence
    assert own.commands[0].endswith("sampling.times=null")
    assert not of(start_snr=0.9 * faint)
    shown = of(coverage={"uniform": linear, "curriculum, complete": linear}, start_snr=0.7)
    assert list(shown) == ["terminal"]
    assert shown["terminal"].commands[0].endswith("diffusion.schedule=squaredcos_cap_v2")
    target = of(target="epsilon", start_snr=0.0005)
    assert list(target) == ["target"]
    assert "times 2000" in target["target"].sentence
    assert target["target"].commands[0].endswith("diffusion.target=sample")
    assert not of(target="v", start_snr=0.0005)
    wasted = replace(schedule.coverage["uniform"], below=0.2, above=0.1)
    ranged = of(coverage={"its own": wasted}, family="edm")
    assert list(ranged) == ["range"]
    assert ranged["range"].sentence.endswith("on your scores (`policy-accel list acceleration/timesteps`).")


def test_rules_on_data(calm: Diagnosis) -> None:
    def of(**changes: object) -> list[Advice]:
        found = rules(replace(calm, data=replace(calm.data, **changes)))  # type: ignore[arg-type]
        return [item for name, item in found.items() if name not in ("baseline", "untouched")]

    assert "action never changes in dimension 1;" in of(constant_actions=(1,))[0].sentence
    assert "observation never changes in dimension 0, 3; leave out" in of(constant_observations=(0, 3))[0].sentence
    (determined,) = of(explained_neighbours=0.9)
    assert determined.rule == "determined"
    assert determined.sentence.endswith("; keep method=baseline, or a choice that is safe to try below.")
    assert not of(explained_linear=None, explained_neighbours=None)
    recurs = of(recurrence=Recurrence(episodes=40.0, inside=0.4, told=0.01))
    assert [(item.rule, item.verdict) for item in recurs] == [("recurs", "try")]
    assert recurs[0].commands[0].endswith("method=recommended sampling.steps=2")
    assert not of(recurrence=Recurrence(episodes=40.0, inside=0.4, told=0.5))


def test_the_table_shows_how_observations_come_again(diagnosis: Diagnosis) -> None:
    data = replace(diagnosis.data, recurrence=Recurrence(episodes=12.4, inside=0.214, told=None))
    shown = "over 12 episodes a group; 21.4% of the chunks' variance inside, of which the exact one tells -"
    assert f"  like observations     {shown}\n" in table(replace(diagnosis, data=data), [])


def test_a_command_replaces_its_own_keys(calm: Diagnosis) -> None:
    mine = replace(calm, train=("diffusion.target=epsilon", "task.data='a b'"))
    assert command(mine, "diffusion.target=sample") == (
        """policy-accel train 'task.data='"'"'a b'"'"'' diffusion.target=sample"""
    )


def test_table_holds_the_numbers(diagnosis: Diagnosis) -> None:
    text = table(diagnosis, advise(diagnosis))
    batch = by_name(diagnosis, "whole batch")
    row = next(line for line in text.splitlines() if line.startswith("  whole batch  "))
    assert f"{batch.distance_after:.3f}" in row
    assert "leaks" in row
    assert "at chance" in next(line for line in text.splitlines() if line.startswith("  independent"))
    assert "floor: sample (configured)" in text
    assert "RECOMMENDATION" in text


def test_picture_has_four_panels_that_are_not_blank(diagnosis: Diagnosis, tmp_path: Path) -> None:
    import matplotlib.image

    path = tmp_path / "new" / "picture.png"
    draw_diagnosis(diagnosis, path)
    pixels = matplotlib.image.imread(path)[..., :3]
    height, width = pixels.shape[:2]
    for rows in (slice(0, height // 2), slice(height // 2, height)):
        for columns in (slice(0, width // 2), slice(width // 2, width)):
            panel = pixels[rows, columns]
            colourful = (panel.max(-1) - panel.min(-1)) > 0.2
            assert colourful.mean() > 0.004
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]
