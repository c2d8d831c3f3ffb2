"""Policies that other libraries trained, read into our networks: LeRobot's and Diffusion Policy's."""
