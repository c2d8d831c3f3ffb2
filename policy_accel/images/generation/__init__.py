"""Images from a trained model: the sampler and its guidance, the classes, edits, and the files that come out."""
