"""A policy as one file that runs without policy_accel, and such files as policies of ours."""
