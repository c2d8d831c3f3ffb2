"""Environments: importing this registers `policy_accel/PushT-v0`; the simulator is imported when it is made."""

from __future__ import annotations

import gymnasium

gymnasium.register(id="policy_accel/PushT-v0", entry_point="policy_accel.envs.pusht:PushT")
