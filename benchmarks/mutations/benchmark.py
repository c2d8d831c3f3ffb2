"""Mutations of policy_accel/benchmark."""

from __future__ import annotations

from mutations import of

MUTATIONS = [
    *of(
        "benchmark/operations.py",
        "benchmark/test_operations.py",
        ("* (1 if once else 2)", "* 1"),
        ("read = result if name in GATHERS", "read = value if name in GATHERS"),
        ("if func.is_view or name in NO_WORK:", "if func.is_view:"),
    ),
    *of(
        "benchmark/counting.py",
        "benchmark/test_counting.py",
        ("replace(config.optimizer, clip_grad_norm=None)", "config.optimizer"),
        ("gradient_bytes=4 * trained", "gradient_bytes=2 * trained"),
        ('operations.bytes["lerp_"]', 'operations.bytes["_fused_adamw_"]'),
    ),
    *of(
        "benchmark/step.py",
        "benchmark/test_step.py",
        ("counted.flops / flops_per_second", "counted.flops / bytes_per_second"),
        ("floor.seconds / taken", "taken / floor.seconds"),
        ("getattr(eager, what) / getattr(core, what)", "getattr(core, what) / getattr(eager, what)"),
        ("if number % 2 == 0 else reversed(sides)", ""),
        ("seconds / rounds / both", "seconds / both"),
    ),
]
