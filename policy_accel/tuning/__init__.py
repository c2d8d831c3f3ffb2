"""Which times the sampler of a trained policy takes, for a number of evaluations of its network."""
