"""Which noise, which time, how the optimiser moves: one file a method, each usable in anyone's own loop."""
