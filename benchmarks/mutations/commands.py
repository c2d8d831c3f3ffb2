"""Mutations of policy_accel/commands."""

from __future__ import annotations

from mutations import of

MUTATIONS = [
    *of("commands/tune_sampling.py", "policy/test_pretrained_policy.py", (", run_dir=str(run_dir)", "")),
    *of(
        "commands/demo.py",
        "commands/test_demo.py",
        ('["--sampling-times", "99,25"]', '["--sampling-steps", "2"]'),
        ("{result['score']:>6.3f}", "{results[0]['score']:>6.3f}"),
        ("except UserError as", "except KeyError as"),
    ),
    *of(
        "commands/output.py",
        "commands/test_then.py",
        ("speaks() and not quiet", "not quiet"),
        ("str(word) for", "word for"),
    ),
    *of(
        "commands/then.py",
        "commands/test_then.py",
        ('*["--trust"] * options.trust', "*[]"),
        ("path.suffix == PROGRAM and", "path.suffix != PROGRAM and"),
        ("all(path.is_dir() for path in paths)", "True"),
    ),
    *of("commands/overview.py", "commands/test_overview.py", ("'' if place else group", "group")),
    *of("commands/doctor.py", "commands/test_doctor.py", ("if asked or one.group == CORE", "if asked")),
    *of(
        "commands/completers.py",
        "commands/test_completers.py",
        ("and cut[0] != prefix", "and False"),
        ("if len(owners) == 1", "if False"),
        ("{'' if run else '/'}", "/"),
        ('value.rpartition(",")', '"", "", value'),
    ),
    *of("doctor/examine.py", "doctor/test_examine.py", ("**os.environ, **probe.environment", "**os.environ")),
    *of(
        "doctor/whole.py",
        "doctor/test_whole.py",
        ("return [own] if own else", "return"),
        ("elif extra not in seen", "else"),
        ("state=NOTE, said", "said"),
    ),
    *of(
        "doctor/torch_build.py",
        "doctor/test_torch_build.py",
        ("if not torch.version.cuda:", "if False:"),
        ('in ("", "-1")', 'in ("",)'),
    ),
    *of("doctor/extras.py", "doctor/test_extras.py", ("if not one.specifier.contains(", "if one.specifier.contains(")),
    *of("commands/parameters.py", "commands/test_parameters.py", ("lr * optimizer.lr_ratio", "lr")),
    *of(
        "commands/early.py",
        "commands/test_early.py",
        ('ARGUMENTS = ("dataset", "data",', 'ARGUMENTS = ("dataset",'),
        ("        if all_known(settings):", "        if True:"),
        ("(key in FIRST and _has_begun(value, run_dir))", "False"),
        ("        begun_with(os.path.expanduser(value))", "        pass"),
        ('for part in value.split(",")', "for part in [value]"),
        ("if options.run in AS_TRAIN:", "if False:"),
        ("check_run(options.guide)", "pass"),
        ("        read_file(options.plan)", "        pass"),
        ("        _check_sweep(settings)", "        pass"),
        ("            os.stat(place)", "            pass"),
        ("            check_checkpoint(run_dir, checkpoint)", "            pass"),
    ),
    *of(
        "commands/numbers.py",
        "commands/test_numbers.py",
        ("if value < least:", "if False:"),
        ("if value > most:", "if False:"),
        ("if not known or not holds(value):", "if False:"),
        ("if value > LARGEST:", "if False:"),
    ),
]
