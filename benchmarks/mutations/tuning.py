"""Mutations of policy_accel/tuning."""

from __future__ import annotations

from mutations import of

MUTATIONS = [
    *of(
        "tuning/grid_search.py",
        "tuning/test_grid_search.py",
        ("best = self._swept(self._best(inserted))", "best = self._best(inserted)"),
        ("if below < time < above", "if time < above"),
        ("if time >= before[-1]:", "if time > before[-1]:"),
        ("(2 if sampler ==", "(1 if sampler =="),
        ("abs(rungs[a] - rungs[b]) <= 1", "abs(rungs[a] - rungs[b]) <= 0"),
        ("math.sqrt(len(means))", "math.sqrt(len(differences))"),
    ),
    *of(
        "tuning/tune.py",
        "tuning/test_tune.py",
        ("max(config.seed, own.start_seed) <", "config.seed <"),
        ("over = one.scores - even.scores", "over = even.scores - one.scores"),
        ("own.score - config.tolerance", "own.score"),
        ("-row.energy if row.scores is None else row.score", "-row.energy"),
        ("if use is None and best.scores", "if best.scores"),
        ("task.validation_batch(indices) if held_out else", "task.batch(indices) if True else"),
        ('named_generator(0, "tune sampling", number)', 'named_generator(0, "tune sampling", 0)'),
        ("if max(config.evaluations) > len(ladder):", "if False:"),
    ),
]
