"""How many calls a measurement takes at least. It imports nothing heavy."""

LEAST_CALLS = 3
"""Of a sampler: they have a median."""
LEAST_LATENCY_CALLS = 10
"""Of a policy on a robot, whose slow calls count."""
