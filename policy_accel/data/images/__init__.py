"""Image sets: reading them in whatever form they come, and the procedural shapes. NumPy and Pillow only, no torch."""

from policy_accel.data.images.image_set import ImageSet, Split
from policy_accel.data.images.inspect import inspect_images
from policy_accel.data.images.npz import write_images_npz
from policy_accel.data.images.read import image_form, image_path, read_images
from policy_accel.data.images.shapes import class_densities, make_shapes

__all__ = [
    "ImageSet",
    "Split",
    "class_densities",
    "image_form",
    "image_path",
    "inspect_images",
    "make_shapes",
    "read_images",
    "write_images_npz",
]
