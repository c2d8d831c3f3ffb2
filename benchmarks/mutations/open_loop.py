"""Mutations of policy_accel/open_loop."""

from __future__ import annotations

from mutations import of

MUTATIONS = [
    *of(
        "open_loop/errors.py",
        "open_loop/test_errors.py",
        ("np.where(self.valid[:, :, None], predicted - self.actions, 0.0)", "predicted - self.actions"),
        ("np.where(constant, np.nan, actions.std(0))", "actions.std(0)"),
    ),
    *of(
        "open_loop/episodes.py",
        "open_loop/test_check.py policy/test_fine_tuning.py",
        ("known |= _before(config)", "pass"),
        ("if not fingerprint.startswith(own):", "if False:"),
        ("free = np.flatnonzero(~seen)", "free = np.flatnonzero(seen >= 0)"),
        ("_trained(digests, trains), _unit(trained_on, trains, rotation)", "_trained(digests, trains), None"),
        ("free = np.array(validation) if validation else free", "pass"),
    ),
    *of(
        "open_loop/measure.py",
        "open_loop/test_check.py",
        ("np.flatnonzero(self.step > 0)", "np.flatnonzero(self.step >= 0)"),
        ("self.actions[rows - 1][:, None]", "self.actions[rows][:, None]"),
        ("AskedSampling(steps=number).of_run(own.config.by(base), tuned)", "(own.config, None)"),
    ),
]
