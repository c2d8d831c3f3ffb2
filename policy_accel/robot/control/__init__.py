"""Actions that are there in time: the loop around a policy, how its chunks join, and rollouts with delay."""
