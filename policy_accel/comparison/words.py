"""A comparison in words."""

from __future__ import annotations

from policy_accel.comparison.power import MOST_EPISODES, MOST_SEEDS
from policy_accel.comparison.result import Comparison, Difference


def sentence(comparison: Comparison, difference: Difference) -> str:
    """What is known of one arm against the baseline."""
    arm, baseline = difference.arm, comparison.baseline
    if difference.interval is None:
        return (
            f"Of {arm} and {baseline} there is {_one_each(comparison)}: nothing tells their difference "
            f"of {difference.value:+.3f} from chance; train more seeds."
        )
    low, high = difference.interval
    if difference.found:
        word = _word(difference)
        least, most = (low, high) if difference.value > 0 else (-high, -low)
        size = f"{abs(difference.value):.3f} [{least:.3f}, {most:.3f}]"
        of = "" if difference.knows_training else " in these very networks"
        return f"{arm} is {word} than {baseline} by {size}{of}.{_two_seeds(comparison, difference)}"
    said = f"{arm} cannot be told from {baseline}: {difference.value:+.3f} [{low:+.3f}, {high:+.3f}]"
    seen = f"a true difference of {difference.detectable:.3f} would be found four times in five"
    return f"{said}; {seen}.{_unseen(comparison, difference)}"


def _one_each(comparison: Comparison) -> str:
    return f"one training seed each{'' if comparison.track == 'images' else ' and no episodes'}"


def _two_seeds(comparison: Comparison, difference: Difference) -> str:
    """A warning where all that is known of an arm is two numbers."""
    fewest = min(len(comparison.arm(name).runs) for name in (difference.arm, comparison.baseline))
    if fewest > 2 or comparison.evaluation_seeds:
        return ""
    return " Two training seeds tell little of chance: add a third before you rely on it."


def _word(difference: Difference) -> str:
    """How an arm differs from the baseline."""
    if difference.better is None:
        return "higher" if difference.value > 0 else "lower"
    return "better" if difference.better else "worse"


def _unseen(comparison: Comparison, difference: Difference) -> str:
    """Why a difference that should be seen is not, and what it would take."""
    asked, smallest = comparison.difference, difference.detectable
    if asked is None or smallest is None or smallest <= asked:
        return ""
    said = f" One of {asked:g} could not be seen"
    if not difference.knows_training:
        return f"{said}, and with one training seed none can be told from the luck of training."
    count = min(len(comparison.arm(name).runs) for name in (difference.arm, comparison.baseline))
    if count < 2:
        return f"{said}: one of the two has a single training seed; train more."
    limit = "training seeds" if difference.error_of_runs > difference.error_of_episodes else "episodes"
    seeds = difference.seeds_needed or f"more than {MOST_SEEDS}"
    said += f" ({limit} are what it lacks most): it would take {seeds} training seeds"
    if len(comparison.evaluation_seeds) < 2:
        return f"{said}."
    said += f" with {len(comparison.evaluation_seeds)} episodes each"
    if difference.episodes_needed:
        return f"{said}, or {difference.episodes_needed:,} episodes with {count} seeds."
    return f"{said}; with {count} seeds, {MOST_EPISODES:,} episodes would not do."


def overall(comparison: Comparison) -> str:
    """What is known of all arms."""
    parts = []
    for word in ("better", "worse", "higher", "lower"):
        names = [one.arm for one in comparison.differences if one.found and _word(one) == word]
        if names:
            parts.append(f"{word.capitalize()} than {comparison.baseline}: {', '.join(names)}.")
    sizes = [one.detectable for one in comparison.differences if not one.found and one.detectable is not None]
    if sizes:
        who = "any other arm" if parts else "any arm"
        parts.append(
            f"No difference of {who} from {comparison.baseline} can be told; one larger than {max(sizes):.3f} would be "
            "(four times in five)."
        )
    if not parts:
        parts.append(f"Nothing can be told: there is {_one_each(comparison)}.")
    return " ".join(parts)
