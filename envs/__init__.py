"""Environments: importing this registers them; a simulator is imported when one of them is made."""

from __future__ import annotations

import gymnasium

for _name, _entry_point in {
    "PushT": "pusht:PushT",
    "TwoModes": "two_modes:TwoModes",
    "Robosuite": "robosuite_env:Robosuite",
    "PointMaze": "mazes:PointMaze",
    "AntMaze": "mazes:AntMaze",
    "Fetch": "fetch:Fetch",
    "Kitchen": "kitchen:Kitchen",
    "AdroitDoor": "adroit:AdroitDoor",
}.items():
    gymnasium.register(id=f"policy_accel/{_name}-v0", entry_point=f"policy_accel.envs.{_entry_point}")
