"""How fast training, sampling and rollouts are, beside what the hardware allows and beside a plain loop."""
