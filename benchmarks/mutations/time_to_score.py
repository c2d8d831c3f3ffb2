"""Mutations of policy_accel/time_to_score."""

from __future__ import annotations

from mutations import of

MUTATIONS = [
    *of(
        "time_to_score/arms.py",
        "time_to_score/test_instrument.py::test_what_cannot_be_trained_is_refused_before_anything_starts "
        "time_to_score/test_instrument.py::test_without_surrogates_no_demonstration_is_held_out",
        ("_check_steps(plan, name, config)", "None"),
        ("if len(runs) < len(arms):", "if False:"),
        ("if plan.surrogates.windows and config", "if config"),
    ),
    *of(
        "time_to_score/costs.py",
        "time_to_score/test_costs.py",
        ("repeats + taught", "repeats"),
        ("task.objective.repetition.repeats", "config.acceleration.path.repetition().repeats"),
        (") + centred", ")"),
    ),
    *of(
        "time_to_score/aggregate.py",
        "time_to_score/test_aggregate.py",
        ("return math.inf, math.inf", "return 0.0, math.inf"),
        ("(1 + confidence) / 2", "confidence"),
        ("_log(a) - _log(b)", "_log(a)"),
    ),
    *of(
        "time_to_score/search.py",
        "time_to_score/test_search.py",
        ("REACHED_BY if unsure else REACHED", "REACHED"),
        ("if not open_targets and not rule.everywhere:", "if not open_targets:"),
    ),
]
