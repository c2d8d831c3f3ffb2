"""Mutations of policy_accel/evaluation."""

from __future__ import annotations

from mutations import of

MUTATIONS = [
    *of(
        "evaluation/statistics.py",
        "evaluation/test_statistics.py",
        ("tail = (1 - confidence) / 2", "tail = 1 - confidence"),
        ('method="wilson"', 'method="exact"'),
        ("[min(low, mean), max(high, mean)]", "[low, high]"),
        ('method="percentile"', 'method="basic"'),
        ("means[0] - means[1], [tail", "means[1] - means[0], [tail"),
        ("start = max(asked.stop, chosen.stop)", "start = min(asked.stop, chosen.stop)"),
        ("return chosen[: len(asked)]", "return chosen"),
        ("sum(scores) / len(scores)", "max(scores)"),
        ("result.length for result in results if not result.error", "result.length for result in results"),
    ),
    *of(
        "evaluation/rollouts.py",
        "evaluation/test_rollouts.py evaluation/test_dictionary_rollouts.py",
        ("self.chunks[slot] += 1", "pass"),
        ("self.chunks[slot] = 0", "self.chunks.setdefault(slot, 0)"),
        ("self.failures[episode] < ATTEMPTS", "self.failures[episode] <= ATTEMPTS"),
        ("for episode in range(len(self.seeds))]", "for episode in self.results]"),
    ),
    *of(
        "evaluation/environments.py",
        "policy/test_heading.py",
        (".max_episode_steps or DEFAULT_STEPS", ".max_episode_steps and DEFAULT_STEPS"),
    ),
]
