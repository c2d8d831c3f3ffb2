"""Every method preset with a net of a few hundred weights, and what it needs where batches are of eight."""

from __future__ import annotations

from pathlib import Path

METHODS = [path.stem for path in sorted((Path(__file__).parents[2] / "configs" / "method").glob("*.yaml"))]
NOT_FOR_IMAGES = ("immiscible_residual", "immiscible_denoiser", "mip")
GROUPS = ["acceleration.noise.groups=4"]
LATER = ["acceleration.noise.start_score=null", "acceleration.noise.start_step=1"]
COMMON = [
    "training.precision=fp32",
    "training.steps=20",
    "training.batch_size=8",
    "training.optimizer.warmup_steps=2",
    "training.ema.lengths=[]",
]
ROBOT_COMMON = [*COMMON, "evaluation.episodes=0"]
MLP = ["model=mlp", "model.hidden_dims=[16,16]", "model.step_embedding_dim=8"]
IMAGES_COMMON = [
    *COMMON,
    "task=shapes",
    "recipe=images_small",
    "task.limit=64",
    "evaluation.samples=0",
    "evaluation.curve_samples=0",
    "evaluation.grid=0",
]
DIT = ["model=dit", "model.width=16", "model.depth=1", "model.heads=2", "model.patch=8", "model.mlp_ratio=1"]
ROBOT_NEEDS = {
    "immiscible_groups": GROUPS,
    "immiscible_classes": GROUPS,
    "everything": GROUPS,
    "immiscible_c2ot": ["acceleration.noise.condition_ratio=0.3"],
    "immiscible_policy": LATER,
    "fdm_cap": ["diffusion.target=v"],
    "fdm_cap_only": ["diffusion.target=v"],
}
IMAGES_NEED = {"immiscible_c2ot": ["acceleration.noise.condition_ratio=0.4"], "immiscible_policy": LATER}


def robot(method: str) -> list[str]:
    """Overrides of a policy that trains by `method`."""
    return [*ROBOT_COMMON, *MLP, f"method={method}", *ROBOT_NEEDS.get(method, [])]


def images(method: str) -> list[str]:
    """Overrides of an image model that trains by `method`."""
    return [*IMAGES_COMMON, *DIT, f"method={method}", *IMAGES_NEED.get(method, [])]
