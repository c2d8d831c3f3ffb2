"""The check of a policy without a simulator: its actions beside those of demonstrations that did not train it."""
