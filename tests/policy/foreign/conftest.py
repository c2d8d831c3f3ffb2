from .straight import chosen_noise

__all__ = ["chosen_noise"]
