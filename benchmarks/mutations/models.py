"""Mutations of policy_accel/models."""

from __future__ import annotations

from mutations import of

MUTATIONS = [
    *of(
        "models/images/edm.py",
        "models/images/test_edm.py",
        ("told[:, :number] * math.sqrt(number)", "told[:, :number]"),
        ("weight[:, :number] / math.sqrt(number)", "weight[:, :number]"),
        ("embedding = embedding + self.condition(told)", "embedding = embedding + 2 * self.condition(told)"),
    ),
    *of(
        "models/encoders/pretrained.py",
        "models/encoders/test_pretrained.py",
        ("+ EPSILON", "+ 0.1"),
        ("shift - mean * scale", "shift"),
        ("weights_only=True", "weights_only=False"),
        ("if not found.isfinite().all():", "if False:"),
        ("    if more:", "    if False:"),
    ),
    *of(
        "models/encoders/resnet.py",
        "models/encoders/test_pretrained.py models/encoders/test_resnet.py",
        ("(0.5 - mean) / deviation", "-mean / deviation"),
        ("0.5 / deviation", "1.0 / deviation"),
        ("or self.in_channels >= FEW_CHANNELS", "or True"),
    ),
    *of(
        "models/encoders/observation.py",
        "models/encoders/test_pretrained.py",
        ("parameter.requires_grad_(False)", "pass"),
        ('("pool", "head")', '("head",)'),
    ),
    *of(
        "models/encoders/augmentation.py",
        "models/encoders/test_augmentation.py",
        ("- by[:, axis, None]", "+ by[:, axis, None]"),
        (".clamp(0, side - 1)", ".remainder(side)"),
        ("self.config.shift + 1", "self.config.shift"),
        ("drawn[SHIFT][:, number]", "drawn[SHIFT][:, 0]"),
        ("drawn[COLOURS][:, number]", "drawn[COLOURS][:, 0]"),
        ("_grey(x).mean(dim=(3, 4), keepdim=True)", "_grey(x)"),
        (" + 6 * turn", " + turn"),
        ("(255 * x).round()", "(255 * x)"),
    ),
    *of("models/embedding.py", "models/test_denoisers.py", (".remainder(t.shape[1])", ".mul(0)")),
    *of(
        "models/images/layers.py",
        "models/images/test_image_denoisers.py",
        ("angles(t, self", "angles(t[:, 0] if t.ndim > 1 else t, self"),
    ),
    *of(
        "models/images/edm2.py",
        "models/images/test_edm2.py",
        ("self.weight.copy_(normalise(self.weight))", "pass"),
        ("weight = normalise(self.weight) *", "weight = self.weight *"),
        ("/ math.hypot(1.0 - share, share)", ""),
        ("(scale / math.sqrt(b.shape[1]))", "(scale / math.sqrt(a.shape[1]))"),
        ("if not self.decoder:", "if False:"),
        ("self.embedding(embedding, self.gain) + 1.0", "self.embedding(embedding, self.gain)"),
        ("q, k, v = heads.transpose", "q, k, v = (2.0 * heads).transpose"),
        ("x.clamp(-BOUND, BOUND)", "x"),
        ("told * math.sqrt(told.shape[1])", "told"),
        ("torch.autocast(t.device.type, enabled=False)", "torch.no_grad()"),
    ),
    *of(
        "models/images/adm.py",
        "models/images/test_adm.py",
        ("projected=inputs != outputs", "projected=True"),
        ("scaled=True", "scaled=False"),
        ("EPS = 1e-5", "EPS = 1e-2"),
        ("all_attend=True", "all_attend=False"),
    ),
    *of(
        "models/group_norm.py",
        "models/test_group_norm.py",
        ("correction=0", "correction=1"),
        ("rows.float()", "rows"),
        ("- mean * plain", ""),
        ("pull * mean - inverse", "pull * mean + inverse"),
    ),
    *of(
        "models/layout.py",
        "models/test_layout.py",
        ("if weight.stride(1) == 1", "if False"),
        ("if x.is_cuda else x", "if False else x"),
    ),
    *of(
        "models/layers.py",
        "models/test_group_norm.py",
        ("x.is_cuda and x.stride(1) == 1", "x.is_cuda"),
        ("x.is_cuda and x.stride(1) == 1", "False"),
    ),
]
