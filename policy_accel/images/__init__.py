"""The image track: image sets to batches, generation, editing, quality measures."""
