"""Formats in which people keep demonstrations, each with a reader and, but for Minari, a writer."""
