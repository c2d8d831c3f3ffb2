"""Mutations of policy_accel/sweep."""

from __future__ import annotations

from mutations import of

MUTATIONS = [
    *of(
        "sweep/grid.py",
        "sweep/test_grid.py",
        ("unquoted(part) if names else _plain_number(part)", "_plain_number(part)"),
        ('format(value, ".12g")', "str(value)"),
        ("if name in runs:", "if False:"),
        ("if keys.count(key) > 1:", "if False:"),
        ("all(o[-n:] != parts[-n:] for o in others)", "True"),
    ),
    *of(
        "sweep/prepare.py",
        "sweep/test_prepare.py",
        ("            chosen.check(config)\n", ""),
        ("if data not in seen:", "if False:"),
        ("if name not in new.runs:", "if False:"),
        ("if before.get(key) != after.get(key):", "if False:"),
        ("if not below(key, FREE_KEYS)}", "}"),
        ("or (old.threads if old else threads)", "or threads"),
        ('if getattr(config.evaluation, "workers", 0) < 0:', "if False:"),
        ('if line.partition("=")[0] not in keys', "if True"),
        ("    launcher.check()\n", ""),
        ('.startswith("cuda:")', '.startswith("cudas:")'),
    ),
    *of(
        "sweep/folder.py",
        "sweep/test_folder.py",
        ("if job.state == RUNNING and not _is_held(self._lock_file(name)):", "if False:"),
        ("if job.state not in (DONE, FAILED):", "if True:"),
        ("if now == job else now", "if True else now"),
        ("if self.job(name).state in (FAILED, STOPPED):", "if self.job(name).state in (STOPPED,):"),
        ("(self.folder / STOP).unlink(missing_ok=True)", "pass"),
        ("fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass"),
    ),
    *of(
        "sweep/job.py",
        "sweep/test_folder.py",
        ("        if sweep.job(name).state == DONE:\n            return DONE\n", ""),
        ("if status == INTERRUPTED or sweep.stop_asked():", "if sweep.stop_asked():"),
        ('"OMP_NUM_THREADS": str(sweep.threads), ', ""),
        ("| dict(environment)", ""),
        ("cwd=sweep.directory", "cwd=None"),
        ("if asked == AT_ONCE:", "if False:"),
        ("elif asked and not before:", "elif False:"),
    ),
    *of(
        "sweep/local.py",
        "sweep/test_local.py::test_several_small_runs_share_a_gpu sweep/test_local.py::test_each_place_has_its_gpu "
        "sweep/test_local.py::test_as_many_side_by_side_as_there_are_cores_each_with_its_share_of_the_threads",
        ("cores // min(side_by_side, runs)", "cores // side_by_side"),
        ("for number in rounds for gpu in gpus if", "for gpu in gpus for number in rounds if"),
        ("{} if place is None else {VISIBLE: place}", "{}"),
        ("[slot % len(gpus)]", "[0]"),
        ("max(1, cores // threads))", "cores)"),
    ),
    *of(
        "sweep/standing.py",
        "sweep/test_screen.py",
        ("whole * (run.updates - run.job.first_step)", "whole * run.updates"),
        ("return left / len(running)", "return left"),
        ("max(updates, expected)", "updates"),
        ("max(logged(run_dir), printed(sweep.log(name)), key", "max([logged(run_dir)], key"),
        ("and run.logged.step < run.updates)", ")"),
        ("if run.job.state in (DONE, FAILED):", "if run.job.state in (DONE,):"),
        ("in reversed(_last_lines(run_dir", "in list(_last_lines(run_dir"),
        ("for run in before if run.job.state == DONE", "for run in before"),
    ),
    *of("sweep/screen.py", "sweep/test_screen.py", ("standings(self._sweep, self._runs)", "standings(self._sweep)")),
    *of("sweep/work.py", "sweep/test_work.py", (" and time.monotonic() < give_up", "")),
    *of(
        "sweep/ray_tasks.py",
        "sweep/test_ray_tasks.py::test_runs_that_wait_for_a_node_in_place_of_a_lost_one_are_withdrawn "
        "sweep/test_ray_tasks.py::test_what_no_cluster_could_ever_give_is_refused",
        ("if self.sweep.job(name).state != RUNNING:", "if self.sweep.job(name).started == 0:"),
        ("any(self._cpus <= cpus and self._gpus <= gpus", "any(self._gpus <= gpus"),
        (' if node["Alive"]]', "]"),
    ),
    *of(
        "sweep/slurm.py",
        "sweep/test_slurm.py::test_jobs_are_handed_in_with_their_options_and_found_again",
        ("slurm_array_parallelism=config.slots or None", "slurm_array_parallelism=None"),
        ("new = [name for name in names if name not in self._jobs]", "new = list(names)"),
        ("if self.sweep.job(name).started == 0:", "if True:"),
        ("cpus_per_task=max(config.cpus, sweep.threads)", "cpus_per_task=1"),
    ),
]
