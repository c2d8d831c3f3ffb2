"""What to do with a diagnosis: explicit rules from the measured numbers to sentences and commands.

The rules, by name:

baseline    Always: independent noise comes first; every method has to beat it.
recurs      Observations come again (`Recurrence.recurs`): groups are safe, and pay at one or two evaluations.
leak        An assignment whose noise tells the observation (p <= `LEAK_P`): avoid. Sampling starts from noise that does
            not, so the policy trusts what it will not have. Nothing bounds how much such noise tells.
bounded     Nearest noise that leaks: its density given the chunk is at most k times that of N(0, I), and the divergence
            ln k - 1 + 1/k nats. Up to `BOUNDED_NATS` (k = 2) an experiment, above it avoid.
doubtful    At chance with p <= `DOUBTFUL_P`, and the distance falls: more rows have to tell before it is called safe.
idle        At chance, and the distance falls by less than `IDLE_DROP`: harmless and without effect.
safe        At chance with p above that, and the distance falls: safe to try.
shrink      The marginal is more than `SHRUNK_NATS` from N(0, I): sampling starts from other noise than training saw.
untouched   Discrete times: methods that leave the noise alone cannot leak; the curriculum moves the median log-SNR.
terminal    alpha / sigma at the last training time, times the actions' root mean square, above `FAINT`: the network
            learns to read a signal that sampling does not give.
grid        The same at the first time of the sampler's grid, where the last training time is noisy enough.
target      Predicted noise, and alpha / sigma below `FAINT` where sampling starts: the first predicted sample is the
            network's error times sigma / alpha.
range       More than `WASTED` of the times outside the useful range of log-SNR.
constant    Dimensions that never change.
determined  More than `DETERMINED` of the chunks' variance predicted from the observation.

The thresholds are ours. `FAINT` is the signal at which `USEFUL_LOG_SNR` begins.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from policy_accel.data.statistics import listed
from policy_accel.diagnosis.facts import DOUBTFUL_P, INDEPENDENT, LEAK_P, Diagnosis, NoiseFacts
from policy_accel.diagnosis.measure import MOST_ROWS

IDLE_DROP = 0.01
BOUNDED_NATS = 0.2
SHRUNK_NATS = 0.05
FAINT = 0.05
WASTED = 0.25
DETERMINED = 0.8
RECORDED = "docs/results/methods.md"
"""What was measured of the methods: advice beyond the data's own numbers is given where there is a record of it."""
NOISE_TARGETS = ("epsilon", "negative_epsilon")


@dataclass(frozen=True)
class Advice:
    """rule: its name above. verdict: start, try, experiment, avoid, change or note. commands: to run, if any."""

    rule: str
    verdict: str
    sentence: str
    commands: tuple[str, ...] = ()


def advise(diagnosis: Diagnosis) -> list[Advice]:
    """The advice of every rule that applies, most important first."""
    start = Advice(
        "baseline",
        "start",
        "Start from independent noise: it is the baseline that every method has to beat on your scores. "
        "On Push-T Muon (recipe=fast) helped more than any of them (docs/results/push_t.md).",
        (command(diagnosis, "method=baseline"),),
    )
    return [
        start,
        *_recurrence(diagnosis),
        *_schedule(diagnosis),
        *_data(diagnosis),
        *_noise(diagnosis),
        *_untouched(diagnosis),
    ]


def _recurrence(diagnosis: Diagnosis) -> Iterator[Advice]:
    if diagnosis.data.recurrence.recurs:
        sentence = (
            "Observations come again, and what differs among their chunks they do not tell: noise assigned inside "
            "groups of like ones pays with one or two evaluations (method=recommended takes it then)."
        )
        yield Advice("recurs", "try", sentence, (command(diagnosis, "method=recommended", "sampling.steps=2"),))


def command(diagnosis: Diagnosis, *overrides: str) -> str:
    """`policy-accel train` on the same data with more `overrides`, which replace those of the same key."""
    keys = {override.split("=", 1)[0] for override in overrides}
    kept = [override for override in diagnosis.train if override.split("=", 1)[0] not in keys]
    return shlex.join(["policy-accel", "train", *kept, *overrides])


def p_text(p_value: float) -> str:
    """A p-value to one digit."""
    return f"{p_value:.0e}" if p_value >= 1e-99 else "<1e-99"


def _noise_rule(facts: NoiseFacts) -> str:
    """The one rule among safe, doubtful, bounded, leak and idle that a choice of noise falls under."""
    if facts.leaks:
        return "bounded" if facts.candidates and _nats(facts.candidates) <= BOUNDED_NATS else "leak"
    if facts.drop < IDLE_DROP:
        return "idle"
    return "doubtful" if facts.doubtful else "safe"


def _leak(facts: NoiseFacts) -> str:
    leak = facts.leak
    return f"{facts.name} (R2 {leak.score:.1%}, local {leak.local:.1%}, p {p_text(leak.p_value)})"


def _nats(candidates: int) -> float:
    return math.log(candidates) - 1.0 + 1.0 / candidates


# By rule: the verdict, how a choice is listed, and the sentence. What is to be tried comes with its commands.
_NOISE_RULES: dict[str, tuple[str, Callable[[NoiseFacts], str], str]] = {
    "safe": (
        "try",
        lambda facts: f"{facts.name} (distance -{facts.drop:.1%})",
        "Safe to try, because their noise does not tell the observation as far as {rows} windows show "
        f"(p > {DOUBTFUL_P:g}): {{choices}}. On Push-T nearest noise was not told from the baseline ({RECORDED}).",
    ),
    "doubtful": (
        "note",
        lambda facts: f"{facts.name} (p {p_text(facts.leak.p_value)})",
        f"Doubtful: {{choices}}. The test does not call it a leak (p > {LEAK_P:g}), but a small one looks like this; "
        f"measure again with more --rows (up to {MOST_ROWS}) before you train with it.",
    ),
    "bounded": (
        "experiment",
        _leak,
        "Only as an experiment against the baseline: {choices}. Such noise tells the observation, but its density "
        f"given the chunk is at most k times that of N(0, I), {_nats(2):.2f} nats for k = 2. On Push-T nearest noise "
        f"was not told from the baseline ({RECORDED}).",
    ),
    "leak": (
        "avoid",
        _leak,
        "Avoid: {choices}. Their noise tells the observation, and the noise that sampling starts from does not: the "
        "training loss falls, and the policy may be far worse. How much, the size of the leak does not say; "
        f"on Push-T assignment over the whole batch ruined it ({RECORDED}).",
    ),
    "idle": (
        "note",
        lambda facts: facts.name,
        f"Harmless, and without effect at these settings (distance falls by less than {IDLE_DROP:.0%}): {{choices}}; "
        "leave them out.",
    ),
}


def _noise(diagnosis: Diagnosis) -> Iterator[Advice]:
    chosen = [facts for facts in diagnosis.noise if facts.name != INDEPENDENT]
    for rule, (verdict, named, sentence) in _NOISE_RULES.items():
        several = [facts for facts in chosen if _noise_rule(facts) == rule]
        if several:
            commands = [command(diagnosis, *f.overrides) for f in several if verdict in ("try", "experiment")]
            choices = ", ".join(map(named, several))
            yield Advice(rule, verdict, sentence.format(choices=choices, rows=diagnosis.rows), tuple(commands))
    shrunk = [facts for facts in chosen if facts.divergence > SHRUNK_NATS]
    if shrunk:
        choices = ", ".join(f"{f.name} (mean square {f.mean_square:.2f}, {f.divergence:.2f} nats)" for f in shrunk)
        sentence = (
            f"Noise of another distribution than the N(0, I) that sampling starts from: {choices}; keep it only if it "
            "beats method=baseline on your scores."
        )
        yield Advice("shrink", "note", sentence)


def _untouched(diagnosis: Diagnosis) -> Iterator[Advice]:
    coverage = diagnosis.schedule.coverage
    if "uniform" in coverage:
        plain, bump = (coverage[times].quantiles[2] for times in ("uniform", "curriculum, complete"))
        sentence = (
            "Methods that leave the noise alone (clts, stratified, min_snr, momentum_decay, fdm) cannot leak; the "
            f"curriculum (clts) moves the median log-SNR that is trained on from {plain:.1f} to {bump:.1f}. "
            "On Push-T consistency (the curriculum with momentum_decay) and fdm were not told from the baseline "
            f"({RECORDED})."
        )
        yield Advice("untouched", "try", sentence, (command(diagnosis, "method=clts"),))


def _schedule(diagnosis: Diagnosis) -> Iterator[Advice]:
    schedule, scale = diagnosis.schedule, diagnosis.data.action_rms
    terminal = min(coverage.terminal_snr for coverage in schedule.coverage.values()) * scale
    start = schedule.start_snr * scale
    if schedule.family == "ddpm" and terminal > FAINT:
        sentence = (
            f"The last training time still shows the actions at {terminal:.0%} of the noise, and sampling starts from "
            "noise alone; take a schedule that ends in noise."
        )
        yield Advice("terminal", "change", sentence, (command(diagnosis, "diffusion.schedule=squaredcos_cap_v2"),))
    elif schedule.family == "ddpm" and start > FAINT:
        times = schedule.spacing is None
        sentence = (
            f"Sampling starts at time {schedule.start_time:g}, where training shows the actions at {start:.0%} of the "
            f"noise ({'sampling.times' if times else f'sampling.spacing={schedule.spacing}'}); start at the last time."
        )
        remedy = "sampling.times=null" if times else "sampling.spacing=trailing"
        yield Advice("grid", "change", sentence, (command(diagnosis, remedy),))
    if schedule.target in NOISE_TARGETS and schedule.start_snr < FAINT:
        sentence = (
            f"diffusion.target={schedule.target}: where sampling starts, the predicted sample is the network's error "
            f"times {1.0 / max(schedule.start_snr, 1e-12):.0f}, so few evaluations waste the first; predict the sample."
        )
        yield Advice("target", "change", sentence, (command(diagnosis, "diffusion.target=sample"),))
    name, coverage = next(iter(schedule.coverage.items()))
    if coverage.below + coverage.above > WASTED:
        low, high = schedule.useful_log_snr
        sentence = (
            f"Of the times ({name}) {coverage.below:.0%} lie below a log-SNR of {low:g} and {coverage.above:.0%} "
            f"above {high:g}, where there is little to learn; compare others with them on your scores "
            "(`policy-accel list acceleration/timesteps`)."
        )
        yield Advice("range", "note", sentence)


def _data(diagnosis: Diagnosis) -> Iterator[Advice]:
    data = diagnosis.data
    for name, constant in (("action", data.constant_actions), ("observation", data.constant_observations)):
        if constant:
            sentence = f"The {name} never changes in dimension {listed(constant)}; leave out what carries nothing."
            yield Advice("constant", "note", sentence)
    explained = max(data.explained_linear or 0.0, data.explained_neighbours or 0.0)
    if explained > DETERMINED:
        sentence = (
            f"The observation alone predicts {explained:.0%} of the chunks' variance, so the actions are nearly "
            "determined and noise that fits the chunk gives the observation away; keep method=baseline, or a choice "
            "that is safe to try below."
        )
        yield Advice("determined", "note", sentence)
