"""Muon against torch.optim.Muon and against the polynomial of the singular values themselves."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from support.methods import DIT, IMAGES_COMMON, MLP, ROBOT_COMMON
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from policy_accel.cli import main
from policy_accel.errors import UserError
from policy_accel.images.track import IMAGES
from policy_accel.policy.track import ROBOT
from policy_accel.training import muon
from policy_accel.training.adamw import AdamW, Group
from policy_accel.training.decaying_adamw import DecayingAdamW
from policy_accel.training.muon import Muon, orthogonalised

NET = ["model=mlp", "model.hidden_dims=[16,16,16]", "model.step_embedding_dim=8", "training/optimizer=muon"]
CONV, MATRIX, BIAS = (6, 3, 2, 2), (6, 12), (5,)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def optimizer_of(
    matrices: list[nn.Parameter], rest: list[nn.Parameter] | None = None, *, decay: float = 0.0, **options: Any
) -> Muon:
    kind = options.pop("kind", AdamW)
    adamw = kind([Group(rest or [], decay)], betas=(0.95, 0.999), eps=1e-8)
    return Muon([Group(matrices, decay)], adamw, **{"lr_ratio": 1.0, "steps": 5, **options})


def polynomial(matrix: Tensor, steps: int) -> Tensor:
    """The steps on the singular values, in float64."""
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(steps):
        s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
    return (u * s) @ vh


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (12, 12)])
@pytest.mark.parametrize("steps", [3, 5])
def test_singular_values_go_through_the_polynomial(shape: tuple[int, int], steps: int) -> None:
    stack = drawn(3, *shape)
    found = orthogonalised(stack, steps)
    for matrix, one in zip(stack, found, strict=True):
        torch.testing.assert_close(one.double(), polynomial(matrix, steps), rtol=1e-4, atol=1e-5)
    if shape != (12, 12) and steps == 5:
        values = torch.linalg.svdvals(found)
        assert values.min() > 0.6
        assert values.max() < 1.25
    assert torch.equal(orthogonalised(torch.zeros(1, 3, 4), steps), torch.zeros(1, 3, 4))


@pytest.mark.parametrize(
    ("shape", "dtype", "by_gram"),
    [
        ((8, 24), torch.float32, True),
        ((24, 8), torch.float32, True),
        ((8, 12), torch.float32, False),
        ((8, 24), torch.bfloat16, False),
    ],
)
def test_the_work_that_is_counted_is_done(shape: tuple[int, int], dtype: torch.dtype, by_gram: bool) -> None:
    """At 8 rows and 24 columns: 5 (4 8^2 24 + 2 8^3) against 4 8^2 24 + 34 8^3."""
    optimizer = optimizer_of([nn.Parameter(drawn(*shape)) for _ in range(3)])
    optimizer.dtype = dtype
    optimizer.moved[0].grad, optimizer.moved[1].grad, optimizer.moved[2].grad = drawn(3, *shape)
    with FlopCounterMode(display=False) as counted:
        optimizer.step(0.1, 0.9)
    n, m = sorted(shape)
    expected = 4 * n * n * m + 34 * n**3 if by_gram else 5 * (4 * n * n * m + 2 * n**3)
    assert counted.get_total_flops() == 3 * expected
    assert optimizer.flops == 3 * expected


def test_equals_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16, as torch has it, on matrices of two shapes with weight decay, whose products it rounds elsewhere."""
    monkeypatch.setattr(muon, "PRECISIONS", {"cpu": torch.bfloat16})
    shapes = ((6, 12), (12, 6), (6, 12))
    ours = [nn.Parameter(drawn(*shape, seed=i)) for i, shape in enumerate(shapes)]
    theirs = [nn.Parameter(part.detach().clone()) for part in ours]
    start = [part.detach().clone() for part in ours]
    optimizer = optimizer_of(ours, decay=0.5, lr_ratio=0.1)
    reference = torch.optim.Muon(
        theirs, lr=0.02, momentum=0.95, weight_decay=0.5, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(6):
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            one.grad = drawn(*one.shape, seed=10 * step + i + 50)
            other.grad = one.grad.clone()
        optimizer.step(0.2, 0.95)
        reference.step()
    for one, other, before in zip(ours, theirs, start, strict=True):
        assert torch.dist(one, other) < 0.01 * torch.dist(other, before)
        torch.testing.assert_close(
            optimizer.state_dict()[f"{_number(ours, one)}.momentum_buffer"], reference.state[other]["momentum_buffer"]
        )


def _number(parts: list[nn.Parameter], part: nn.Parameter) -> int:
    return next(i for i, other in enumerate(parts) if other is part)


def test_a_convolution_is_a_matrix_and_a_stack_is_one_by_one() -> None:
    """Three parameters together against each alone, the convolution as [out, in * k]."""
    starts, gradients = [drawn(*CONV, seed=i) for i in range(3)], [drawn(*CONV, seed=i + 9) for i in range(3)]
    together = [nn.Parameter(start.clone()) for start in starts]
    together[1].data = together[1].data.contiguous(memory_format=torch.channels_last)
    for part, gradient in zip(together, gradients, strict=True):
        part.grad = gradient
    optimizer_of(together).step(0.1, 0.9)
    for part, start, gradient in zip(together, starts, gradients, strict=True):
        alone = nn.Parameter(start.reshape(MATRIX).clone())
        alone.grad = gradient.reshape(MATRIX)
        optimizer_of([alone]).step(0.1, 0.9)
        torch.testing.assert_close(part.detach().reshape(MATRIX), alone.detach())
        moved = alone.detach() - start.reshape(MATRIX)
        expected = -0.1 * 0.2 * 12**0.5 * polynomial(gradient.reshape(MATRIX), 5)
        torch.testing.assert_close(moved.double(), expected, rtol=1e-3, atol=1e-5)
        assert 0.6 * 0.02 < moved.square().mean().sqrt() < 1.2 * 0.02, "an update's root mean square is 0.2 lr"


def trained(steps: range, restart: int | None = None, **options: Any) -> list[Tensor]:
    """A convolution, a matrix and a bias after updates whose lr and beta change; with their state at the end."""
    parts = [nn.Parameter(drawn(*shape, seed=i)) for i, shape in enumerate((CONV, MATRIX, BIAS))]
    on_device = options.pop("on_device", False)
    broken = options.pop("broken", None)
    optimizer = optimizer_of(parts[:2], parts[2:], decay=0.1, **options)
    for step in steps:
        if step == restart:
            saved = {name: value.clone() for name, value in optimizer.state_dict().items()}
            optimizer = optimizer_of(parts[:2], parts[2:], decay=0.1, **options)
            optimizer.load_state_dict(saved)
        for i, part in enumerate(parts):
            part.grad = drawn(*part.shape, seed=10 * step + i)
        left_out = None
        if broken is not None:
            left_out = torch.tensor(float(step == broken))
        if step == broken:
            for part in parts:
                part.grad.mul_(float("nan"))  # type: ignore[union-attr]
        numbers: tuple[Any, Any] = (0.01 * (1 + step % 3), 0.95 - 0.05 * step)
        if on_device:
            numbers = tuple(torch.tensor(number, dtype=torch.float64) for number in numbers)  # type: ignore[assignment]
        optimizer.step(*numbers, left_out)
        optimizer.zero_grad()
    state = optimizer.state_dict()
    assert sorted(state) == ["0.exp_avg", "0.exp_avg_sq", "0.step", "1.momentum_buffer", "2.momentum_buffer"]
    return [*(part.detach() for part in parts), *(state[name] for name in sorted(state))]


def test_it_goes_on_where_it_was_bit_for_bit() -> None:
    for one, other in zip(trained(range(8)), trained(range(8), restart=4), strict=True):
        assert torch.equal(one, other)


def test_numbers_of_the_device_are_as_good() -> None:
    results = (trained(range(5)), trained(range(5), on_device=True, kind=DecayingAdamW))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_step_that_is_left_out_changes_nothing() -> None:
    """Of three steps the one in the middle, whose gradients are not finite; lr and beta of the last are those of 2."""
    options: dict[str, Any] = {"kind": DecayingAdamW, "on_device": True}
    whole = trained(range(3), broken=1, **options)
    parts = [nn.Parameter(drawn(*shape, seed=i)) for i, shape in enumerate((CONV, MATRIX, BIAS))]
    optimizer = optimizer_of(parts[:2], parts[2:], decay=0.1, kind=DecayingAdamW)
    for step in (0, 2):
        for i, part in enumerate(parts):
            part.grad = drawn(*part.shape, seed=10 * step + i)
        numbers = (torch.tensor(n, dtype=torch.float64) for n in (0.01 * (1 + step % 3), 0.95 - 0.05 * step))
        optimizer.step(*numbers)  # type: ignore[call-arg]
    for one, other in zip(whole, parts, strict=False):
        assert torch.equal(one, other)


def test_a_parameter_without_gradient_stays() -> None:
    parts = [nn.Parameter(drawn(3, 4)), nn.Parameter(drawn(3, 4))]
    parts[0].grad = drawn(3, 4, seed=1)
    optimizer_of(parts, decay=0.1).step(0.1, 0.9)
    assert torch.equal(parts[1], drawn(3, 4))
    assert not torch.equal(parts[0], drawn(3, 4))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["training.optimizer.matrix_lr=0"], r"training\.optimizer\.matrix_lr=0\.0 must be positive"),
        (["training.optimizer.newton_schulz_steps=6"], r"newton_schulz_steps=6 must lie between 3 and 5"),
        (["training.shard=true"], r"training/optimizer=muon needs all of it; set training\.shard=false"),
        (
            ["method=momentum_decay", "training.optimizer.momentum_decay.exact_bias_correction=true"],
            r"exact_bias_correction is for optimisers that divide by 1 - beta\^k, and training/optimizer=muon does not",
        ),
    ],
)
def test_settings_out_of_range(overrides: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        ROBOT.train(ROBOT.config([*ROBOT_COMMON, *NET, *overrides, f"run_dir={tmp_path}/run"]))


def test_a_run_from_before_there_was_a_choice_goes_on(tmp_path: Path) -> None:
    """Its config.yaml names no optimiser: it was AdamW."""
    config = ROBOT.config([*ROBOT_COMMON, *MLP, "training.steps=2", f"run_dir={tmp_path}/run"])
    ROBOT.train(config)
    record = tmp_path / "run" / "config.yaml"
    text = record.read_text()
    assert text.count("    name: adamw\n") == 1
    record.write_text(text.replace("    name: adamw\n", ""))
    ROBOT.train(config)
    assert ROBOT.read(tmp_path / "run").training.optimizer == config.training.optimizer
    muon_config = ROBOT.config([*ROBOT_COMMON, *NET, "training.steps=2", f"run_dir={tmp_path}/run"])
    with pytest.raises(UserError, match=r"holds a run with another configuration"):
        ROBOT.train(muon_config)


def test_the_example_of_the_page_trains_and_says_what_it_moves(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "explanation" / "optimizers.md").read_text()
    line = next(line.strip() for line in page.splitlines() if line.startswith("    policy-accel train "))
    few = ["training.steps=2", "training.batch_size=4", "evaluation.episodes=0", f"run_dir={tmp_path}/run"]
    assert main([*shlex.split(line, comments=True)[1:], *few, "training.device=cpu"]) == 0
    assert "Muon moves 44 matrices with 95% of the weights" in capfd.readouterr().err
    assert "Muon moves 44 matrices with 95% of the weights" in page


def test_its_name_chooses_nothing() -> None:
    with pytest.raises(UserError, match=r"training\.optimizer=muon: write training/optimizer=muon to choose it"):
        ROBOT.config(["training.optimizer=muon"])


@pytest.mark.parametrize("track", [ROBOT, IMAGES])
def test_both_tracks_have_it_with_momentum_that_decays(track: Any) -> None:
    common = [*ROBOT_COMMON, *NET] if track is ROBOT else [*IMAGES_COMMON, *DIT, "training/optimizer=muon"]
    config = track.config([*common, "method=momentum_decay"])
    assert config.training.optimizer.name == "muon"
    assert config.training.optimizer.momentum_decay.name == "demon"
