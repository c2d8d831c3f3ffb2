"""Models that other libraries saved: which files they are, and reading them without running any of it."""
