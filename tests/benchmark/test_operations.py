import torch

from policy_accel.benchmark.operations import Operations, tensor_bytes


def test_bytes_are_those_of_operands_and_results():
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    with Operations() as operations:
        c = a @ b
        c.t().add_(1.0)
        torch.empty(7)
    assert operations.calls == {"mm": 1, "add_": 1}
    assert operations.bytes == {"mm": 4 * (12 + 20 + 15), "add_": 4 * 2 * 15}


def test_the_optimiser_reads_a_gradient_and_leaves_it():
    """Weights and both moments are read and written, the gradient is read; and a number of steps, added to before."""
    weight = torch.ones(10, requires_grad=True)
    weight.grad = torch.ones(10)
    optimizer = torch.optim.AdamW([weight], fused=True)
    optimizer.step()
    with Operations() as operations:
        optimizer.step()
    assert operations.bytes["_fused_adamw_"] == 4 * 7 * 10 + 4


def test_a_gather_reads_what_it_takes():
    with Operations() as operations:
        torch.ones(1000, 3)[torch.tensor([5, 7])]
    assert operations.bytes["index"] == 4 * 6 + 4 * 6 + 8 * 2


def test_averaging_reads_both_and_writes_one():
    with Operations() as operations:
        torch.zeros(10).lerp_(torch.ones(10), 0.1)
    assert operations.bytes["lerp_"] == 4 * 3 * 10


def test_tensors_are_found_in_lists_and_dictionaries():
    assert tensor_bytes([torch.ones(2), {"a": torch.ones(3, dtype=torch.uint8)}, 5]) == 11
