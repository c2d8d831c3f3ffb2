"""Mutations of policy_accel/policy."""

from __future__ import annotations

from mutations import of

MUTATIONS = [
    *of(
        "policy/foreign/names.py",
        "policy/foreign/test_names.py policy/foreign/test_lerobot.py",
        ("HEAD_GROUPS = 8", "HEAD_GROUPS = 4"),
        ("columns = [*range(own), *(own + step * len(order) + place", "columns = [*range(own), *(own + step + place"),
        ('state["observation.weight"][:, list(order)]', 'state["observation.weight"]'),
        ("film[0] == 2 * first[0][0]", "True"),
    ),
    *of(
        "policy/foreign/lerobot_statistics.py",
        "policy/foreign/test_lerobot.py",
        ("width = torch.where(width == 0, EPSILON, width)", "width = width + EPSILON"),
        ("1 / (high + EPSILON)", "1 / (high + 1)"),
        ('"constant": torch.where(varies, 0.0, low)', '"constant": torch.zeros_like(low)'),
        ("high + EPSILON if mode ==", "high if mode !="),
        ('"QUANTILES": ("q01", "q99")', '"QUANTILES": ("min", "max")'),
    ),
    *of(
        "policy/foreign/lerobot.py",
        "policy/foreign/test_lerobot.py",
        ("for kind in (STATE, ENVIRONMENT) for name", "for kind in (ENVIRONMENT, STATE) for name"),
    ),
    *of(
        "policy/foreign/diffusion_policy.py",
        "policy/foreign/test_diffusion_policy.py",
        ('("ema_model", "model")', '("model", "ema_model")'),
        ('"crop_width": None if size is None or size[0] == size[1] else size[1]', '"crop_width": None'),
        ("(scale == 2).all() and", "True or"),
    ),
    *of("policy/track.py", "policy/test_pretrained_policy.py", ("config.distillation.teacher or ", "")),
    *of("policy/track.py", "tuning/test_tune.py", ("if how is None:", "if True:")),
    *of(
        "policy/held_out.py",
        "policy/test_held_out.py",
        ("/ (2 * draws * (draws - 1))", "/ (2 * draws * draws)"),
        ("known=unchanged if self.mask is None else known", "known=unchanged"),
        ("slice(begin, begin + ENCODED)", "slice(0, ENCODED)"),
    ),
    *of(
        "policy/task.py",
        "policy/test_image_policy.py",
        ("**self.augmentation(pictures, drawn)", "**pictures"),
        ("**self.augmentation.draw(count, generator)", ""),
    ),
    *of(
        "policy/track.py",
        "policy/test_pretrained_policy.py",
        ("policy.encoder.begin_with(weights)", "pass"),
        (' or checkpoint_steps(Path(config.run_dir) / "checkpoints")', ""),
    ),
    *of(
        "policy/recurrence.py",
        "policy/test_recurrence.py",
        ("pairs.bincount(minlength=count)[groups]", "pairs.bincount(minlength=count)"),
        ("told = 1.0 - float(", "told = float("),
        ("and self.inside >= UNDECIDED", ""),
        ("values - (sums", "values - 0 * (sums"),
    ),
    *of(
        "policy/recommend.py",
        "policy/test_recommend.py",
        ("if evaluations > FEW_EVALUATIONS:", "if evaluations > 3:"),
        ("if found.recurs and", "if"),
        ('config.policy.conditioning != "global" or', ""),
        ('if config.diffusion.family != "ddpm":', "if False:"),
    ),
    *of(
        "policy/normalization.py",
        "policy/test_normalization.py",
        ("(x.double() - self.center[columns]).float()", "x.float() - self.center[columns].float()"),
        ("torch.where(self.varies, x, self.constant.to(self.dtype))", "x"),
        ("center = np.where(~constant & (steps > _FAR), low + (high - low) / 2, 0.0)", "center = 0.0 * low"),
    ),
    *of(
        "policy/run.py",
        "policy/test_units.py",
        ("config.sampling.clip_sample = wider", "pass"),
        ("largest <= clip * (1 + ROUNDING)", "largest <= clip"),
    ),
    *of(
        "policy/task.py",
        "policy/test_task.py policy/test_planning.py",
        ("self.policy.config.n_obs_steps - 1]]", "self.policy.config.n_obs_steps]]"),
        ("~self.known & counted", "self.known & counted"),
        ("observed = steps[:, : self.policy", "observed = steps[:, 1 : 1 + self.policy"),
        ("self.observations[steps[:, -1]]", "self.observations[steps[:, 0]]"),
        ("self._gather(self.validation, to_device(", "self._gather(self.train, to_device("),
    ),
    *of(
        "policy/evaluate.py",
        "policy/test_evaluate.py policy/test_controller.py",
        ("config.start_seed + config.episodes)", "config.start_seed + config.episodes + 1)"),
    ),
    *of(
        "policy/controller.py",
        "policy/test_controller.py",
        ("self._history.extend([taken] * (", "self._history.extend([taken] * 0 * ("),
    ),
    *of(
        "policy/planner.py",
        "policy/test_controller.py",
        ('"rollout", seed, chunk)', '"rollout", seed, 0)'),
        ("[plan[:, steps:], plan[:, -1:]", "[plan[:, steps:], plan[:, :1]"),
    ),
    *of(
        "policy/committed.py",
        "policy/test_committed.py",
        ("level.sigma * noise - x[..., :dim]", "level.sigma * noise"),
        ("F.pad(weights, others)", "F.pad(weights, others, value=1.0)"),
    ),
    *of(
        "policy/policy.py",
        "policy/test_policy.py policy/test_planning.py",
        ("start = self.config.n_obs_steps - 1", "start = self.config.n_obs_steps"),
        ("mask[: self.config.n_obs_steps, self.action_dim :] = True", "mask[:1, self.action_dim :] = True"),
        ("goal = self.observation_normalizer(goal, columns)", "pass"),
    ),
    *of(
        "policy/actions.py",
        "policy/test_actions.py",
        ("action_dim // DIFFUSED * RECORDED", "action_dim"),
        ("column % DIFFUSED >= POSITION", "column >= POSITION"),
    ),
    *of(
        "policy/denoising.py",
        "policy/test_denoising.py",
        (".clamp(min=1.0)", ""),
        ("+ [policy.plan]", "+ seen[-1:]"),
        ("policy.reset(noise)", "policy.reset(0)"),
        ("start = run.config.policy.n_obs_steps - 1", "start = 0"),
    ),
    *of(
        "policy/task.py",
        "policy/test_fine_tuning.py",
        ("_check_kept(policy, demonstrations)\n        else", "pass\n        else"),
    ),
]
