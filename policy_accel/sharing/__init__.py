"""Models in the form of the Hugging Face hub, whatever their track: files, cards, and where they come from."""
