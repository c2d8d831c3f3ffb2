"""Latents beside pixels: the autoencoder between them, files of latents, and what a model sees of an image."""
