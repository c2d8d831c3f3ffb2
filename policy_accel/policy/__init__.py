"""Robot track: observations and action chunks."""
