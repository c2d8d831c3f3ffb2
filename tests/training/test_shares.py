"""The rows of a batch that go through the network together."""

from __future__ import annotations

import pytest
import torch

from policy_accel.diffusion import Batch, Noised
from policy_accel.training.ranks import ALONE, Ranks
from policy_accel.training.shares import shares_of


def examples(repeats: int = 1, *, masked: bool = False) -> tuple[Batch, Noised]:
    x = torch.arange(8 * repeats * 6.0).view(-1, 2, 3)
    counted = torch.arange(8 * repeats * 2).view(-1, 2, 1) % 3 > 0 if masked else None
    batch = Batch(torch.arange(8 * 6.0).view(8, 2, 3), condition={"state": torch.arange(8)[:, None]})
    return batch, Noised(x, torch.arange(8 * repeats), -x, None, x, counted, repeats)


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize(("ranks", "pieces"), [(ALONE, 2), (ALONE, 8), (Ranks(1, 2), 1), (Ranks(3, 4), 2)])
def test_each_piece_has_its_rows_of_everything(ranks: Ranks, pieces: int, repeats: int) -> None:
    batch, noised = examples(repeats, masked=True)
    shares = shares_of(batch, noised, ranks, pieces)
    rows = 8 // ranks.count // pieces
    assert [len(share.batch.x0) for share in shares] == [rows] * pieces
    begin = ranks.rank * 8 // ranks.count
    whole = slice(begin, begin + rows * pieces)
    assert torch.equal(torch.cat([share.batch.x0 for share in shares]), batch.x0[whole])
    assert isinstance(batch.condition, dict)
    states = torch.cat([share.batch.condition["state"] for share in shares if isinstance(share.batch.condition, dict)])
    assert torch.equal(states, batch.condition["state"][whole])
    several = slice(whole.start * repeats, whole.stop * repeats)
    for name in ("x_t", "t", "target", "model_input", "counted"):
        assert torch.equal(torch.cat([getattr(share.noised, name) for share in shares]), getattr(noised, name)[several])
    assert noised.counted is not None
    assert all(share.of == noised.counted.sum() * 3 for share in shares)


def test_the_whole_batch_stays_as_it_is() -> None:
    batch, noised = examples()
    (share,) = shares_of(batch, noised, ALONE, 1)
    assert share.batch is batch
    assert share.noised is noised
    assert share.of is None


def test_without_a_mask_every_element_counts() -> None:
    assert [float(share.of) for share in shares_of(*examples(), ALONE, 2) if share.of is not None] == [48.0, 48.0]
