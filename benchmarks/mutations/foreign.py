"""Mutations of policy_accel/foreign."""

from __future__ import annotations

from mutations import of

MUTATIONS = [
    *of(
        "foreign/torch_zip.py",
        "policy/foreign/test_diffusion_policy.py",
        ("return type(name, (Husk,), {}) if", "return super().find_class(module, name) if"),
        ("int(argument or 0) > MOST_OBJECTS", "False"),
        ("info.file_size != count * dtype.itemsize", "False"),
    ),
    *of(
        "foreign/betas.py",
        "images/foreign/test_unet2d_process.py",
        ("float(listed.min())", "1e-4"),
        ("if len(listed) == timesteps else ()", ""),
    ),
    *of("foreign/stored.py", "policy/foreign", ('"spacing": "leading"', '"spacing": "trailing"')),
]
