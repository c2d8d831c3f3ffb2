"""Mutations of the files that lie at the top of policy_accel."""

from __future__ import annotations

from mutations import of

MUTATIONS = [
    *of(
        "track.py",
        "policy/test_pretrained_policy.py",
        ("defaults = plain(defaults_of(self.schema, record, self.name), resolve=False)", "defaults = {}"),
    ),
    *of(
        "distill.py",
        "commands/test_distill.py",
        ("task.model.load_state_dict(loaded.model.state_dict())", "task.model"),
        ('if state["data"] != task.fingerprint:', "if False:"),
        ("if changed or not asked_alike(task.objective, loaded.sampler.objective):", "if False:"),
        ("if len(set(times)) < evaluations:", "if False:"),
        ("checkpoint=str(step)", "checkpoint=checkpoint"),
        ("if own is None or len(own) != evaluations:", "if False:"),
    ),
    *of(
        "run_sampling.py",
        "test_run_sampling.py commands/test_evaluate.py",
        ("and not self.untuned", ""),
        ("tuned.use if self.steps is None else self.steps", "tuned.use"),
        ('changed["times"] = None', "pass"),
    ),
    *of(
        "extras.py",
        "test_extras.py",
        ('if not (folder / "envs").is_dir():', "if True:"),
        ("in {folder.parent}", "in {folder}"),
        ('marker.evaluate({"extra": ""}) or ', ""),
        ("if requirement.name == DISTRIBUTION:", "if False:"),
        ("requirement.marker = None", "pass"),
    ),
    *of("track.py", "commands/test_evaluate.py", ("max(results, key=", "min(results, key=")),
    *of("quoting.py", "test_typed_values.py", ('in (*PAIRS, ":", ",", "")  #', "in text  #")),
    *of(
        "typed_values.py",
        "test_typed_values.py",
        ("if abs(value) >= LARGEST:", "if False:"),
        ("return value if known else literal(value)", "return value"),
        ("if text in NOTHING:", "if False:"),
    ),
    *of(
        "run_files.py",
        "training/test_further_training.py",
        ("or not (waits or taught)", "or True"),
    ),
    *of(
        "key_hints.py",
        "test_key_hints.py commands/test_list.py test_groups.py",
        ('if name.endswith(".py"):', "if False:"),
        ("if len(known) <= MANY:", "if True:"),
        ("cutoff=0.3)", "cutoff=0.99)"),
        ('["those of a plugin need plugins=[MODULE]"]', "[]"),
    ),
    *of("remarks.py", "test_remarks.py", ("category is UserWarning and", "")),
]
