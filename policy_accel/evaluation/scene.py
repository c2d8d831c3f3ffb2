"""Environments whose actions are places in the picture that they draw."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np


class ActionsOnScene(ABC):
    """Declares, for a gymnasium environment, where its actions lie on what `render` gives, to draw them there."""

    @abstractmethod
    def action_pixels(self, actions: np.ndarray, height: int, width: int) -> np.ndarray:
        """Where actions [N, A] lie on a picture of that size: x (to the right) and y (down), px, [N, 2]."""
