"""A sum whose bits do not depend on who added up which part of it."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

Node = tuple[int, int]
"""(level, index): the sum of the values index * 2**level to (index + 1) * 2**level."""


class PairwiseSum:
    """Adds values in a fixed binary tree as they come: a node is added up as soon as its two halves are there.

    At most one node of each level is kept, so that n values take the memory of log2(n). The parts of a process can be
    handed over as nodes and added to those of the next: the tree is the same.
    """

    def __init__(self) -> None:
        self.nodes: list[tuple[Node, Tensor]] = []

    def add(self, node: Node, value: Tensor) -> None:
        """Add the next node of the tree; `value` may be changed."""
        level, index = node
        while index % 2 == 1 and self.nodes and self.nodes[-1][0] == (level, index - 1):
            value = self.nodes.pop()[1].add_(value)
            level, index = level + 1, index // 2
        self.nodes.append(((level, index), value))

    def total(self) -> Tensor:
        """Return the sum of all, when there are no more to come."""
        while len(self.nodes) > 1:
            _, right = self.nodes.pop()
            self.nodes[-1][1].add_(right)
        return self.nodes[0][1]


def nodes_of(leaves: Iterable[int]) -> list[Node]:
    """Return the nodes that are left when `leaves`, numbers in a row, have been added."""
    nodes: list[Node] = []
    for leaf in leaves:
        level, index = 0, leaf
        while index % 2 == 1 and nodes and nodes[-1] == (level, index - 1):
            nodes.pop()
            level, index = level + 1, index // 2
        nodes.append((level, index))
    return nodes
