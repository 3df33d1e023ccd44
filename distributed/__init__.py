"""Several processes: who they are, what they share out, and what they decide together. torchrun starts them."""

from distributed.launch import is_main, launched, rank, world_size

__all__ = ["is_main", "launched", "rank", "world_size"]
