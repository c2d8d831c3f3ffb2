"""Many runs as one piece of work: the product of choices, on this machine, on Ray or on SLURM."""
