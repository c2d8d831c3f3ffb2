"""Hydra files: tasks, networks, recipes. No defaults live here that the code has too."""
