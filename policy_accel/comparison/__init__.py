"""Which of several ways to train is better: scores of runs, over training seeds and episodes. It needs no torch."""
