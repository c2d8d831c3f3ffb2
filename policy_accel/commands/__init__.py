"""What the commands of `policy-accel` do."""
