"""`method=recommended` for policies: what was measured, applied to the data at hand."""

from __future__ import annotations

from collections.abc import Callable

from policy_accel.acceleration.assigned_noise import GroupedAssignmentConfig
from policy_accel.policy.config import RobotConfig
from policy_accel.policy.recurrence import Recurrence, task_recurrence
from policy_accel.policy.run import build_sampler
from policy_accel.policy.task import ChunkTask
from policy_accel.track import Recommendation

FEW_EVALUATIONS = 2
FEWEST_WINDOWS = 4 * GroupedAssignmentConfig().groups
GROUPS_RECORD = "docs/results/records.md#two_modes-time-to-score-2026-11-29"
BASELINE_RECORD = "docs/results/records.md#pusht_keypoints-compare-2026-11-29"


def recommend(config: RobotConfig, build: Callable[[], ChunkTask]) -> Recommendation:
    """Assignment inside groups of like observations for one or two evaluations of the network on data whose
    observations come again; else the baseline.

    `build` gives the task; it is called only where the data decide.

    Raises:
        UserError: as the reader of the data does.
    """
    evaluations = build_sampler(config).network_evaluations()
    if evaluations > FEW_EVALUATIONS:
        why = f"with {evaluations} evaluations a chunk no method was found that beats it"
        return Recommendation("baseline", why, BASELINE_RECORD)
    if config.diffusion.family != "ddpm":
        return Recommendation("baseline", "nothing was measured for another process than ddpm", BASELINE_RECORD)
    if config.policy.conditioning != "global" or config.task.images:
        return Recommendation("baseline", "nothing was measured for pictures or in-painting", BASELINE_RECORD)
    task = build()
    found = task_recurrence(task, config)
    if found.recurs and task.samples >= FEWEST_WINDOWS:
        return Recommendation("immiscible_groups", f"observations come again ({_told(found)})", GROUPS_RECORD)
    return Recommendation("baseline", f"observations do not come again ({_told(found)})", BASELINE_RECORD)


def _told(found: Recurrence) -> str:
    told = "-" if found.told is None else f"{found.told:.0%}"
    return (
        f"groups of like ones reach over {found.episodes:.0f} episodes and leave {found.inside:.0%} of the chunks' "
        f"variance, of which the exact observation tells {told}"
    )
