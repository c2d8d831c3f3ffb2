from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from policy_accel.errors import UserError, check_choice, did_you_mean, naming, one_of, refuse_idle


def test_the_nearest_name() -> None:
    assert did_you_mean("epsilom", ["epsilon", "sample", "v"]) == "did you mean 'epsilon'?"


def test_all_names_when_none_is_near() -> None:
    assert did_you_mean("zzz", ["b", "a", "a"]) == "known are: a, b."


def test_a_name_that_begins_alike_is_nearer() -> None:
    assert did_you_mean("pushT", ["fetch_push", "pusht_state", "lift"]) == "did you mean 'pusht_state'?"


def test_the_users_name_of_an_argument() -> None:
    with pytest.raises(UserError) as raised, naming("acceleration.timesteps"):
        raise ValueError("width=-1.0 must be positive, as width=0.5 is.")
    assert str(raised.value) == "acceleration.timesteps.width=-1.0 must be positive, as width=0.5 is."
    assert isinstance(raised.value.__cause__, ValueError)


def test_an_argument_that_the_setting_calls_otherwise() -> None:
    with pytest.raises(UserError) as raised, naming("momentum", strength="multiplier", kind="input_scale"):
        raise ValueError("strength=2.0 has no effect with kind=one, whatever its strength.")
    assert str(raised.value) == "momentum.multiplier=2.0 has no effect with input_scale=one, whatever its strength."


def test_an_argument_of_another_section() -> None:
    with pytest.raises(UserError) as raised, naming("acceleration.path", timesteps="diffusion.timesteps"):
        raise ValueError("modes=5 is more than timesteps=4.")
    assert str(raised.value) == "acceleration.path.modes=5 is more than diffusion.timesteps=4."
    with pytest.raises(UserError) as raised, naming("acceleration.path", timesteps="diffusion.timesteps"):
        raise ValueError("timesteps=4 must be 5.")
    assert str(raised.value) == "diffusion.timesteps=4 must be 5."


def test_a_choice_in_words() -> None:
    with pytest.raises(UserError) as raised, naming("acceleration.momentum", kind="input_scale"):
        check_choice("kind", "naturel", ("natural", "kind"))
    assert str(raised.value) == "acceleration.momentum.input_scale 'naturel' is unknown; did you mean 'natural'?"


def test_data_are_no_setting() -> None:
    with pytest.raises(UserError) as raised, naming("acceleration.noise"):
        raise ValueError("conditions: row 3 holds a value that is not finite.")
    assert str(raised.value) == "acceleration.noise: conditions: row 3 holds a value that is not finite."


def test_what_the_user_cannot_put_right_passes() -> None:
    with pytest.raises(UserError, match=r"^as it is$"), naming("section"):
        raise UserError("as it is")
    with pytest.raises(TypeError, match=r"^a fault of ours$"), naming("section"):
        raise TypeError("a fault of ours")


def test_a_choice_by_argument_and_by_setting() -> None:
    assert check_choice("metric", "l2", ("dot", "l2")) == one_of("noise.metric", "l2", ("dot", "l2")) == "l2"
    with pytest.raises(ValueError, match=r"^metric 'l3' is unknown; did you mean 'l2'\?$"):
        check_choice("metric", "l3", ("dot", "l2"))
    with pytest.raises(UserError, match=r"^noise\.metric 'l3' is unknown; did you mean 'l2'\?$"):
        one_of("noise.metric", "l3", ("dot", "l2"))


@dataclass
class Inner:
    width: int = 3
    flag: bool = False


@dataclass
class Outer:
    name: str = "plain"
    size: int | None = None
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (Outer(size=2), r"^part\.size=2 has no effect with name=plain; leave it at null\.$"),
        (Outer(inner=Inner(width=4)), r"^part\.inner\.width=4 has no effect with name=plain; leave it at 3\.$"),
        (Outer(inner=Inner(flag=True)), r"^part\.inner\.flag=true has no effect with name=plain; leave it at false\.$"),
    ],
)
def test_a_setting_that_would_do_nothing_is_named_however_deep(config: Outer, said: str) -> None:
    with pytest.raises(UserError, match=said):
        refuse_idle(config, "part", {"name"}, "name=plain")
    refuse_idle(Outer(name="other"), "part", {"name"}, "name=plain")
    refuse_idle(config, "part", {"name", "size", "inner"}, "name=plain")
