"""Image sets, read in whatever form they come. NumPy and Pillow only, no torch."""

from policy_accel.data.images.image_set import ImageSet, Split
from policy_accel.data.images.read import KNOWN_FORMS, image_form, image_path, read_images

__all__ = ["KNOWN_FORMS", "ImageSet", "Split", "image_form", "image_path", "read_images"]
