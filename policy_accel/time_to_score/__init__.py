"""What reaching a score costs: methods trained alike, their checkpoints scored until each target is decided."""
