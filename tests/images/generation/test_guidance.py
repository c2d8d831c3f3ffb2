from __future__ import annotations

import pytest
import torch
from torch import Tensor

from policy_accel.diffusion import FlowProcess, SigmaProcess, vp_process
from policy_accel.diffusion.predictions import predicted_sample
from policy_accel.errors import UserError
from policy_accel.images.generation.classes import class_condition, class_numbers
from policy_accel.images.generation.guidance import evaluations_per_step, guided

X = torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
T = torch.tensor([0.5, 0.5, 0.5])


class Network:
    """Depends on everything it is given, non-linearly in the state, and counts rows and calls."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        self.rows.append(len(x))
        told = torch.zeros(len(x)) if condition is None else condition @ torch.arange(1.0, condition.shape[1] + 1)
        return torch.tanh(x + t.view(-1, 1, 1, 1) + told.view(-1, 1, 1, 1))


def test_condition_is_one_hot_and_the_rest_is_zero() -> None:
    condition = class_condition(torch.tensor([2, 0]), 2, classes=3, condition_dim=12)
    assert condition is not None
    assert condition.shape == (2, 12)
    assert condition.dtype == torch.float32
    assert condition.nonzero().tolist() == [[0, 2], [1, 0]]
    assert float(condition.sum()) == 2.0
    null = class_condition(None, 2, classes=3, condition_dim=12)
    assert null is not None
    assert null.shape == (2, 12)
    assert not bool(null.any())
    assert class_condition(None, 2, classes=0, condition_dim=0) is None


@pytest.mark.parametrize(
    ("labels", "classes", "sentence"),
    [
        ([0, 3], 3, r"label 3 is none of the model's classes; choose 0 to 2"),
        ([-1, 0], 3, r"label -1 .*choose 0 to 2"),
        ([0, 0], 0, r"trained without classes; leave them out"),
    ],
)
def test_labels_that_the_model_does_not_know(labels: list[int], classes: int, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        class_condition(torch.tensor(labels), 2, classes=classes, condition_dim=classes)


def test_weights_zero_and_one_are_one_evaluation_of_the_model_alone() -> None:
    network, condition = Network(), torch.eye(3)
    assert torch.equal(guided(network, condition, 1.0)(X, T), Network()(X, T, condition))
    assert torch.equal(guided(network, condition, 0.0)(X, T), Network()(X, T, torch.zeros(3, 3)))
    assert torch.equal(guided(network, None, 1.0)(X, T), Network()(X, T, None))
    assert network.rows == [3, 3, 3]
    assert [evaluations_per_step(w) for w in (0.0, 1.0, 1.5, -0.5)] == [1, 1, 2, 2]


@pytest.mark.parametrize("weight", [2.5, 0.3, -1.0])
def test_other_weights_extrapolate_in_one_doubled_batch(weight: float) -> None:
    network, condition = Network(), torch.eye(3)
    result = guided(network, condition, weight)(X, T)
    assert network.rows == [6]
    conditional, null = Network()(X, T, condition), Network()(X, T, torch.zeros(3, 3))
    torch.testing.assert_close(result, null + weight * (conditional - null), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("process", "time", "target"),
    [
        (vp_process(), 60, "epsilon"),
        (vp_process(), 60, "v"),
        (vp_process(), 60, "sample"),
        (SigmaProcess("edm"), 0.7, "edm"),
        (SigmaProcess("ve"), 0.7, "negative_epsilon"),
        (FlowProcess(), 0.7, "flow"),
    ],
)
def test_guiding_the_prediction_is_guiding_the_clean_sample(process: object, time: float, target: str) -> None:
    level = process.level(time)  # type: ignore[attr-defined]
    condition, weight = torch.eye(3), 3.0

    def clean(of: Tensor) -> Tensor:
        return predicted_sample(of, X, level, target)

    conditional, null = Network()(X, T, condition), Network()(X, T, torch.zeros(3, 3))
    by_prediction = clean(guided(Network(), condition, weight)(X, T))
    by_sample = clean(null) + weight * (clean(conditional) - clean(null))
    torch.testing.assert_close(by_prediction, by_sample, rtol=1e-9, atol=1e-9)
    assert float((by_prediction - clean(conditional)).abs().max()) > 1e-2


def test_the_difference_is_taken_in_the_precision_of_the_state() -> None:
    """In bf16 these predictions differ by less than a step of 100 times their difference would resolve."""

    def network(x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        assert condition is not None
        return (1.0 + condition[:, :1] / 128).bfloat16()

    guided_by = guided(network, torch.ones(1, 1), 1.5)(torch.zeros(1, 1), torch.zeros(1))
    assert guided_by.dtype == torch.float32
    assert float(guided_by) == 1.0 + 1.5 / 128


def test_classes_by_name_or_number() -> None:
    assert class_numbers("all", ("cat", "dog")) == (0, 1)
    assert class_numbers("dog, 0,cat", ("cat", "dog")) == (1, 0, 0)
    # Folders are sorted as text: the class called 2 is the third here, and its name counts.
    assert class_numbers("2,10", ("1", "10", "2")) == (2, 1)
    assert class_numbers("crane, bird,crane,0", ("crane", "crane, bird")) == (1, 0, 0)
    assert class_numbers("all", ("none", "all")) == (1,)
    for text, sentence in [
        ("2", r"label 2 is none of the model's 2 classes; choose 0 to 1"),
        ("-1", r"label -1 "),
        ("dgo", r"did you mean 'dog'"),
    ]:
        with pytest.raises(UserError, match=sentence):
            class_numbers(text, ("cat", "dog"))


def test_class_names_with_commas_and_quotes() -> None:
    classes = ("a", "a, b", "b, c", "c", '5" disc', "bird's nest", '"quoted"', "tench, Tinca tinca")
    for number, name in enumerate(classes):
        assert class_numbers(name, classes) == (number,)
        doubled = name.replace('"', '""')
        assert class_numbers(f'c,"{doubled}", {number} ,{name}', classes) == (3, number, number, number)
    # Quotes say where a name ends: without them, the longest one is meant.
    assert class_numbers('"a","b,c"', classes) == (0, 2)
    assert class_numbers("a,b, c", classes) == (1, 3)
    assert class_numbers("'bird''s nest',tench,Tinca tinca", classes) == (5, 7)
    for text, sentence in [
        ('"tench, Tinca",a', r"label 'tench,Tinca' is none"),
        ("a,,b", r"label '' is none"),
        ("a,'b", r"label ''b' is none"),
    ]:
        with pytest.raises(UserError, match=sentence):
            class_numbers(text, classes)
