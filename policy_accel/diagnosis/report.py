"""A diagnosis as a table for people and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from policy_accel.acceleration.diagnostics import QUANTILES
from policy_accel.diagnosis.advice import Advice, p_text
from policy_accel.diagnosis.facts import INDEPENDENT, LEAK_P, Diagnosis, NoiseFacts
from policy_accel.files import replacing


def table(diagnosis: Diagnosis, advice: Sequence[Advice]) -> str:
    """All blocks, each with a line that says how to read it."""
    blocks = [_data(diagnosis), _noise(diagnosis), _levels(diagnosis), _schedule(diagnosis), _advice(advice)]
    return "\n\n".join("\n".join(block) for block in blocks)


def _data(diagnosis: Diagnosis) -> list[str]:
    d = diagnosis.data
    entries = d.horizon * d.action_dim
    rows = [
        ("windows", f"{d.windows} from {d.episodes} episodes"),
        ("chunk", f"{d.horizon} x {d.action_dim} = {entries} numbers, effective dimension {d.effective_dimension:.1f}"),
        ("observation", f"{d.n_obs_steps} x {d.observation_dim} = {d.n_obs_steps * d.observation_dim} numbers"),
        (
            "chunk predicted by it",
            f"{_share(d.explained_linear)} linear, {_share(d.explained_neighbours)} nearest neighbours",
        ),
        (
            "like observations",
            f"over {d.recurrence.episodes:.0f} episodes a group; {_share(d.recurrence.inside)} of the chunks' variance "
            f"inside, of which the exact one tells {_share(d.recurrence.told)}",
        ),
        (
            "action deviation",
            " ".join(f"{value:.2f}" for value in d.action_std[:12]) + (" ..." if len(d.action_std) > 12 else ""),
        ),
        (
            "constant dimensions",
            f"{len(d.constant_actions)} of the action, {len(d.constant_observations)} of the observation",
        ),
    ]
    note = "Chunks are normalised; predictions are for episodes that the prediction has not seen."
    return [f"DATA  {diagnosis.dataset}", note, *(f"  {name:<22}{value}" for name, value in rows)]


def _share(value: float | None) -> str:
    return "-" if value is None else "worse than the mean" if value < -1 else f"{value:.1%}"


def _verdict(facts: NoiseFacts) -> str:
    if facts.leaks:
        return "leaks"
    return "at chance?" if facts.doubtful else "at chance"


_NOISE_COLUMNS: dict[str, Callable[[NoiseFacts], str]] = {
    "noise": lambda facts: facts.name,
    "distance": lambda facts: f"{facts.distance_before:.3f}",
    "after": lambda facts: f"{facts.distance_after:.3f}",
    "drop": lambda facts: f"{facts.drop:.1%}",
    "mean n^2": lambda facts: f"{facts.mean_square:.3f}",
    "KL nats": lambda facts: f"{facts.divergence:.3f}",
    "moved": lambda facts: "-" if facts.rows_moved is None else f"{facts.rows_moved:.0%}",
    "leak R2": lambda facts: f"{facts.leak.score:.2%}",
    "local": lambda facts: f"{facts.leak.local:.2%}",
    "p": lambda facts: p_text(facts.leak.p_value),
    "verdict": _verdict,
    "ms": lambda facts: f"{facts.milliseconds:.1f}",
}


def _noise(diagnosis: Diagnosis) -> list[str]:
    body = [[column(facts) for column in _NOISE_COLUMNS.values()] for facts in diagnosis.noise]
    return [
        f"NOISE  {diagnosis.rows} windows in batches of {diagnosis.batch_size}",
        "Leak: how much of the observation the noise of its window tells. Sampling starts from noise that tells "
        f"nothing, so only 'at chance' (p > {LEAK_P:g}) is safe.",
        *_aligned(list(_NOISE_COLUMNS), body),
        *(f"  {name}: not measured: {reason}" for name, reason in diagnosis.refused.items()),
    ]


def _levels(diagnosis: Diagnosis) -> list[str]:
    levels = diagnosis.levels
    head = ("log SNR", *(f"{value:.1f}" for value in levels.log_snr))
    own = [
        (f"own origin: {name}", *(f"{value:.3f}" for value in values))
        for name, values in levels.own_probability.items()
    ]
    configured = diagnosis.schedule.target
    floors = [
        (f"floor: {name}{' (configured)' if name == configured else ''}", *(f"{value:.2g}" for value in values))
        for name, values in levels.floors.items()
    ]
    return [
        f"NOISE LEVELS  {levels.rows} windows, without the observation",
        f"Own origin: probability that a noised chunk stems from its own window (1 apart, {1 / levels.rows:.4f} "
        "mixed). Floor: loss that no network goes below; the gradient is noisy where it is high.",
        *_aligned(head, [*own, *floors]),
    ]


def _schedule(diagnosis: Diagnosis) -> list[str]:
    schedule = diagnosis.schedule
    low, high = schedule.useful_log_snr
    head = ("times", *(f"{share:.0%}" for share in QUANTILES), f"below {low:g}", f"above {high:g}", "terminal SNR")
    body = [
        (
            distribution,
            *(f"{value:.1f}" for value in coverage.quantiles),
            f"{coverage.below:.0%}",
            f"{coverage.above:.0%}",
            f"{coverage.terminal_snr:.2g}",
        )
        for distribution, coverage in schedule.coverage.items()
    ]
    return [
        f"SCHEDULE  {schedule.family}, target {schedule.target}",
        "Quantiles of the log-SNR that is trained on, shares outside the useful range, alpha / sigma at the noisiest "
        "time.",
        *_aligned(head, body),
        f"  sampling ({schedule.sampler}, {schedule.evaluations} evaluations) starts at time {schedule.start_time:g}, "
        f"alpha / sigma {schedule.start_snr:.2g}",
    ]


def _aligned(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rows = [head, *body]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _advice(advice: Sequence[Advice]) -> list[str]:
    lines = ["RECOMMENDATION"]
    for item in advice:
        lines += [item.sentence, *(f"    {command}" for command in item.commands)]
    return lines


def draw_diagnosis(diagnosis: Diagnosis, path: Path) -> None:
    """Write the picture to `path`, replacing what is there.

    Raises:
        UserError: the disk is full, no permission.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.0, 9.0), layout="constrained")
    (leak, own), (floor, schedule) = figure.subplots(2, 2)

    names = [facts.name for facts in diagnosis.noise][::-1]
    places = range(len(names))
    facts = diagnosis.noise[::-1]
    leak.barh([p + 0.2 for p in places], [100 * f.drop for f in facts], 0.38, color="tab:blue", label="distance drop")
    colors = ["tab:red" if f.leaks else "tab:green" for f in facts]
    leaked = [100 * max(f.leak.score, f.leak.local) for f in facts]
    leak.barh([p - 0.2 for p in places], leaked, 0.38, color=colors)
    for place, f, value in zip(places, facts, leaked, strict=True):
        leak.text(max(value, 0.0) + 0.5, place - 0.2, f"{_verdict(f)} {value:.2g} %", va="center", fontsize=8)
    leak.barh([0], [0], color="tab:red", label="leak: larger of R2 and local")
    leak.set_yticks(list(places), names)
    leak.set_xlabel("percent")
    leak.set_xlim(right=1.35 * max([1.0, *leaked, *(100 * f.drop for f in facts)]))
    leak.set_title("What a choice of noise gains, and what it tells")
    leak.legend(loc="lower right", fontsize=8)

    levels = diagnosis.levels
    for name, values in levels.own_probability.items():
        own.plot(levels.log_snr, values, marker="o", linewidth=2.5 if name == INDEPENDENT else 1.2, label=name)
    own.set_title("Probability that a noised chunk is its own window's")
    own.set_ylim(-0.03, 1.03)
    for name, values in levels.floors.items():
        configured = name == diagnosis.schedule.target
        label = f"{name} (configured)" if configured else name
        floor.plot(
            levels.log_snr, [max(v, 1e-12) for v in values], marker="o", linewidth=3 if configured else 1.2, label=label
        )
    floor.set_yscale("log")
    floor.set_ylim(bottom=max(1e-6, floor.get_ylim()[0]))
    floor.set_title("Loss floor by target (observation unknown)")
    for axis in (own, floor):
        axis.set_xlabel("log SNR (noisy left, clean right)")
        axis.legend(fontsize=8)

    distributions = list(diagnosis.schedule.coverage.items())[::-1]
    schedule.axvspan(*diagnosis.schedule.useful_log_snr, color="tab:green", alpha=0.12, label="useful range")
    for place, (_, coverage) in enumerate(distributions):
        q = coverage.quantiles
        schedule.plot([q[0], q[4]], [place, place], color="tab:blue", linewidth=2)
        schedule.plot([q[1], q[3]], [place, place], color="tab:blue", linewidth=12, alpha=0.6, solid_capstyle="butt")
        schedule.plot([q[2]], [place], "k|", markersize=22, markeredgewidth=2)
    schedule.set_yticks(range(len(distributions)), [name for name, _ in distributions])
    schedule.set_ylim(-0.7, len(distributions) - 0.3)
    schedule.set_xlabel("log SNR")
    schedule.set_title("Noise levels trained on: 5, 25, 50, 75, 95 %")
    schedule.legend(loc="upper left", fontsize=8)
    for axis in (leak, own, floor, schedule):
        axis.grid(alpha=0.3)
    figure.suptitle(f"{Path(diagnosis.dataset).name}: before any training")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
