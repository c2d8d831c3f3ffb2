from __future__ import annotations

import csv
import io

from policy_accel.comparison.result import Arm, Comparison, Difference
from policy_accel.comparison.table import csv_table, text_table

FOUND = Comparison(
    task="pusht",
    track="robot",
    measure="score",
    better="higher",
    baseline="baseline",
    confidence=0.95,
    power=0.8,
    difference=0.03,
    pooled=False,
    evaluation_seeds=[7, 8, 9],
    arms=[
        Arm("baseline", {1: 0.5, 2: 0.7}, {1: "a", 2: "b"}, 0.6, (0.25, 0.95)),
        Arm("kl lr=0.1", {1: 0.75}, {1: "c"}, 0.75, None),
    ],
    differences=[
        Difference("kl lr=0.1", 0.15, (-0.05, 0.35), 0.0004, 0.25, False, True, 0.3125, 0.1, 0.2, 9, None, True)
    ],
    notes=[],
)


def test_columns_are_aligned() -> None:
    assert text_table(FOUND) == [
        "score (higher is better) of pusht over 3 episodes; intervals of 95 %; differences from baseline",
        "arm        seeds  episodes  mean   interval        difference  interval          p      p (Holm)  detectable",
        "baseline   1,2    3         0.600  [0.250, 0.950]",
        "kl lr=0.1  1      3         0.750  -               +0.150      [-0.050, +0.350]  <.001  0.250     0.312",
    ]


def test_csv_has_all_digits() -> None:
    baseline, other = csv.DictReader(io.StringIO(csv_table(FOUND)))
    assert (baseline["arm"], baseline["training_seeds"], baseline["difference"]) == ("baseline", "1 2", "")
    assert other == {
        "arm": "kl lr=0.1",
        "training_seeds": "1",
        "episodes": "3",
        "mean": "0.75",
        "low": "",
        "high": "",
        "difference": "0.15",
        "difference_low": "-0.05",
        "difference_high": "0.35",
        "p": "0.0004",
        "p_holm": "0.25",
        "detectable": "0.3125",
        "found": "False",
    }
