"""Encoder and decoder of the U-Nets whose blocks also halve and double the image (Song et al. 2021): DDPM++, NCSN++,
ADM and EDM2's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

Block = Callable[..., nn.Module]
Parts = tuple[nn.ModuleList, nn.ModuleList, nn.ModuleList]


def encoder_and_decoder(
    start: int,
    levels: Sequence[tuple[int, int]],
    *,
    blocks: int,
    heads: int,
    encoder: Block,
    decoder: Block,
    all_attend: bool = False,
    beside: Sequence[nn.Module] = (),
) -> Parts:
    """The layers down, in the middle and up, each of them `layer(x, embedding)`.

    Args:
        start: channels that enter.
        levels: channels of each resolution, finest first, and heads of its attention, 0 for none.
        blocks: on the way down at each resolution; one more on the way up.
        heads: of the attention in the middle.
        encoder, decoder: `block(channels in, channels out, heads=0, resample=None)`; resample is "down", "up" or None.
        all_attend: whether all blocks of the decoder have the attention of their resolution, or the last one alone.
        beside: follows each block that halves, the finest first.
    """
    current, skips = start, [start]
    down, up = nn.ModuleList(), nn.ModuleList()
    for level, (outputs, attention) in enumerate(levels):
        if level > 0:
            down.extend([encoder(current, current, resample="down"), *beside[level - 1 : level]])
            skips.append(current)
        for _ in range(blocks):
            down.append(encoder(current, outputs, heads=attention))
            current = outputs
            skips.append(current)
    middle = nn.ModuleList([decoder(current, current, heads=heads), decoder(current, current)])
    for level, (outputs, attention) in reversed(list(enumerate(levels))):
        if level < len(levels) - 1:
            up.append(decoder(current, current, resample="up"))
        for index in range(blocks + 1):
            attends = all_attend or index == blocks
            up.append(decoder(current + skips.pop(), outputs, heads=attention if attends else 0))
            current = outputs
    return down, middle, up


def encode(x: Tensor, embedding: Tensor, down: Iterable[nn.Module]) -> list[Tensor]:
    """x [B, C, H, W] and what each layer down makes of it."""
    skips = [x]
    for layer in down:
        skips.append(layer(skips[-1], embedding))
    return skips


def concatenated(x: Tensor, skip: Tensor) -> Tensor:
    """Channels side by side."""
    return torch.cat([x, skip], dim=1)


def decode(
    skips: list[Tensor],
    embedding: Tensor,
    middle: Iterable[nn.Module],
    up: Iterable[nn.Module],
    join: Callable[[Tensor, Tensor], Tensor] = concatenated,
) -> Tensor:
    """The last of `skips` through the middle and up; each block that keeps the size is joined by one of them."""
    x = skips[-1]
    for layer in middle:
        x = layer(x, embedding)
    for layer in up:
        if layer.resample is None:
            x = join(x, skips.pop())
        x = layer(x, embedding)
    return x
