"""Accelerated training of robot diffusion policies and image diffusion models on one training core."""
