from __future__ import annotations

import torch

from policy_accel.training.randomness import DataOrder, Generators, derive_seed, named_generator

CPU = torch.device("cpu")


def test_streams_of_different_names_and_seeds_differ() -> None:
    seeds = {derive_seed(0, "noise"), derive_seed(0, "time"), derive_seed(1, "noise"), derive_seed(0, "noise", 1)}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert torch.equal(
        torch.rand(3, generator=named_generator(5, "a")), torch.rand(3, generator=named_generator(5, "a"))
    )


def test_generators_continue_from_their_state() -> None:
    def draw(generators: Generators) -> list[torch.Tensor]:
        streams = (generators.time, generators.noise, generators.batch, None)
        return [torch.rand(2, generator=stream) for stream in streams]

    generators = Generators(3, CPU)
    draw(generators)
    state = generators.state_dict()
    expected = draw(generators)
    other = Generators(4, CPU)
    other.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(draw(other), expected, strict=True))


def test_a_state_without_a_stream_of_batches_leaves_that_one_fresh() -> None:
    """As in checkpoints from before tasks drew anything: the other streams continue."""
    generators = Generators(3, CPU)
    torch.rand(2, generator=generators.noise)
    torch.rand(2, generator=generators.batch)
    state = {name: text for name, text in generators.state_dict().items() if name != "batch"}
    other = Generators(3, CPU)
    other.load_state_dict(state)
    assert torch.equal(torch.rand(4, generator=other.noise), torch.rand(4, generator=generators.noise))
    assert torch.equal(torch.rand(4, generator=other.batch), torch.rand(4, generator=named_generator(3, "batch")))


def test_every_epoch_visits_every_sample_once() -> None:
    order = DataOrder(10, 4, seed=0, device=CPU)
    drawn = torch.cat([order.batch(step) for step in range(10)])
    for epoch in range(4):
        assert sorted(drawn[10 * epoch : 10 * epoch + 10].tolist()) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:20].tolist()


def test_the_batch_of_a_step_needs_no_history() -> None:
    order = DataOrder(10, 4, seed=0, device=CPU)
    for step in range(9):
        order.batch(step)
    assert torch.equal(order.batch(9), DataOrder(10, 4, seed=0, device=CPU).batch(9))
    assert not torch.equal(order.batch(9), DataOrder(10, 4, seed=1, device=CPU).batch(9))


def test_a_batch_larger_than_the_data_is_full() -> None:
    batch = DataOrder(3, 8, seed=0, device=CPU).batch(1)
    assert batch.shape == (8,)
    assert set(batch.tolist()) == {0, 1, 2}


def test_batches_hold_runs_of_a_group() -> None:
    groups = torch.arange(100) % 10
    order = DataOrder(100, 20, 3, torch.device("cpu"), groups=groups, run=5)
    epoch = torch.cat([order.batch(step) for step in range(5)])
    assert torch.equal(epoch.sort().values, torch.arange(100))
    assert all(len(set((run % 10).tolist())) == 1 for run in epoch.split(5))
    again = DataOrder(100, 20, 3, torch.device("cpu"), groups=groups, run=5)
    assert torch.equal(again.batch(4), order.batch(4))
    assert not torch.equal(order.batch(0), order.batch(5))


def test_timesteps_noise_and_batches_have_streams_of_their_own() -> None:
    generators = Generators(5, torch.device("cpu"))
    drawn = [torch.rand(4, generator=stream) for stream in (generators.time, generators.noise, generators.batch)]
    for values, name in zip(drawn, ("time", "noise", "batch"), strict=True):
        assert torch.equal(values, torch.rand(4, generator=named_generator(5, name)))
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])
