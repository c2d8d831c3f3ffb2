"""Image models that others can use: in Python, as a folder of the Hugging Face hub, with a model card."""
