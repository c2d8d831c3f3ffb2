"""Mutations of policy_accel/images."""

from __future__ import annotations

from mutations import of

MUTATIONS = [
    *of(
        "images/foreign/edm.py",
        "images/foreign/test_edm.py",
        ('"condition" if adm else "condition.classes"', '"condition"'),
    ),
    *of(
        "images/foreign/edm_parts.py",
        "images/foreign/test_edm.py images/foreign/test_edm2.py",
        ("tensor.unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1)", "tensor"),
    ),
    *of(
        "images/foreign/edm2.py",
        "images/foreign/test_edm2.py",
        ('queries_first(tensor.float()) if "qkv" in inside else', ""),
        ("[1] - 1, side, side)", "[1], side, side)"),
        ("if place[name] != ours", "if False"),
        ("encoding=LATENTS if latents else None", "encoding=None"),
    ),
    *of(
        "images/foreign/dit.py",
        "images/foreign/test_dit.py",
        ("(table[:-1] - null).T", "table[:-1].T"),
        ('for name in ("ema", "model")', 'for name in ("model", "ema")'),
    ),
    *of(
        "images/foreign/unet2d.py",
        "images/foreign/test_unet2d.py",
        ('if said["flip_sin_to_cos"]', "if False"),
        ('"frequency_shift": int(shift)', '"frequency_shift": 1'),
        ('"eps": float(said["norm_eps"])', '"eps": 1e-2'),
        ("latents=encoding is not None", "latents=False"),
    ),
    *of(
        "models/images/ddpm.py",
        "images/foreign/test_unet2d.py",
        ("padding=0 if self.below else 1", "padding=1"),
        ("return heads_by_width(channels, self.head_channels)", "return 1"),
    ),
    *of(
        "images/foreign/to_diffusers.py",
        "images/foreign/test_to_diffusers.py",
        ('"learned_range" if _learns(run)', '"fixed_small" if _learns(run)'),
        ("_check_strides(process, sampling.steps, sampling.spacing)", "pass"),
    ),
    *of(
        "images/deviation.py",
        "images/test_deviation.py",
        ("config.acceleration.data_scale * measured_deviation", "measured_deviation"),
        ("- (total / count) ** 2", ""),
        ("    if known is not config:", "    if False:"),
    ),
    *of(
        "images/generation/sampling.py",
        "images/generation/test_sampling.py",
        ("low < _noise_level(level) <= high", "low <= _noise_level(level) < high"),
        ("alone if self.config.weight(level) == 1.0 else within", "within"),
        (
            "return self.predictions(strength, resamplings) + twice",
            "return 2 * self.predictions(strength, resamplings)",
        ),
        ("guidance_interval=None if weight == 1.0 else self.guidance_interval", "guidance_interval=None"),
    ),
    *of(
        "images/generation/classes.py",
        "images/generation/test_guidance.py",
        ("range(min(longest, len(pieces)), 0, -1)", "range(1, min(longest, len(pieces)) + 1)"),
        (".replace(2 * name[0], name[0])", ""),
    ),
    *of(
        "images/generation/editing.py",
        "images/generation/test_editing.py",
        ("np.asarray(marked) > 1e-6", "np.asarray(marked) > 0.5"),
        ("mask[y0:y1, x0:x1] = True", "mask[x0:x1, y0:y1] = True"),
        ("or _is_picture(file)", ""),
    ),
    *of(
        "images/augment.py",
        "images/test_augment.py",
        ("torch.where(uniform[6] < 0.5, 0.0, 2.0 * circle[1] - math.pi)", "circle[1]"),
        ('if images.device.type != "cpu" or torch.compiler.is_compiling():', "if True:"),
    ),
    *of(
        "images/generation/autoguidance.py",
        "commands/test_sample.py",
        ("if itself and average == own_average and options.average != ALL:", "if False:"),
        ("if guide.classes not in ((), own.classes):", "if False:"),
    ),
    *of(
        "images/task.py",
        "images/test_task.py",
        ("device=generator.device) >= self", "device=generator.device) < self"),
        ("images, labels = self.validation.take(indices)", "images, labels = self.validation.take(indices.flip(0))"),
        ("self.one_hot[labels]", "self.one_hot[labels.flip(0)]"),
    ),
    *of(
        "images/metrics/measure.py",
        "images/metrics/test_measure.py",
        ("if distance in wanted:", "if True:"),
        ("METRICS.items() if name in wanted}", "METRICS.items()}"),
    ),
    *of(
        "images/metrics/table.py",
        "images/metrics/test_measure.py",
        ("floor / value if lower else value / floor", "floor / value"),
    ),
    *of(
        "images/scoring/evaluate.py",
        "images/scoring/test_evaluate.py",
        ("[places.long()[", "[(places * 0).long()["),
        ('"classes")) * len(labels)', '"classes")) * 5'),
        ("None if full else self.curve)", "None)"),
        ('"score_from": self.scored,', '"score_from": "x",'),
    ),
    *of(
        "images/metrics/table.py",
        "images/metrics/test_measure.py",
        ('(one.get("floor_samples") or math.inf) < one', '(one.get("floor_samples") or math.inf) > one'),
        ('"hold out more" if', '"hold out more" if not'),
    ),
]
