"""What `policy-accel doctor` finds out about a machine. Whatever may crash is tried in a process of its own."""
