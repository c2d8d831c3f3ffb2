"""Mutations of policy_accel/commands."""

from __future__ import annotations

from mutations import of

MUTATIONS = [
    *of("commands/tune_sampling.py", "policy/test_pretrained_policy.py", (", run_dir=str(run_dir)", "")),
    *of(
        "commands/demo.py",
        "commands/test_demo.py",
        ('["--sampling-times", "99,25"]', '["--sampling-steps", "2"]'),
        ("{result['score']:>6.3f}", "{results[0]['score']:>6.3f}"),
        ("except UserError as", "except KeyError as"),
    ),
    *of("commands/parameters.py", "commands/test_parameters.py", ("lr * optimizer.lr_ratio", "lr")),
]
