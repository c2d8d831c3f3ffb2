"""What each method would change on a set of demonstrations, measured before any training, and what to do with that."""

from policy_accel.diagnosis.advice import Advice, advise
from policy_accel.diagnosis.facts import Diagnosis
from policy_accel.diagnosis.measure import ROWS, diagnose
from policy_accel.diagnosis.report import draw_diagnosis, table

__all__ = ["ROWS", "Advice", "Diagnosis", "advise", "diagnose", "draw_diagnosis", "table"]
