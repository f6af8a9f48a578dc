"""Functions of a tensor, replayed from the operations of one run.

The time of a Pyro model in few rows is Python's: handlers, distributions, checks of shapes. What
torch does below is the same in every run as long as no branch depends on a value. So it is recorded
once, what does not depend on the argument is computed once, and the rest is replayed: the paper's
mixture in 432 coordinates has its gradient in 8 worlds in 40 % of the time, digit for digit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from rbpp.internals import operations

Pair = tuple[Tensor, Tensor]
# Calls at one shape after which a recording pays for itself: the first takes as long as about 300.
_WORTH = 300
# Values that are handed on as they are, once nothing is written in place.
_SAME = {
    torch.ops.aten.detach.default,
    torch.ops.aten.alias.default,
    torch.ops.aten.lift_fresh_copy.default,
}


class Recorded:
    """A function of a tensor (N, D) that is replayed where it is called often.

    Args:
        function: to record; whatever it raises, a replay raises or leaves to it.
        fresh: N other arguments, at which a recording has to give what the function gives: one that
            reads numbers outside torch, as by NumPy, does not, and is not replayed.
        within: contexts that the function needs around it.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Pair],
        fresh: Callable[[int], Tensor],
        within: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.function, self.fresh, self.within = function, fresh, within
        self.calls: Counter[int] = Counter()
        self.graphs: dict[int, GraphModule | None] = {}

    def __call__(self, argument: Tensor) -> Pair:
        """The function's value."""
        count = len(argument)
        if count not in self.graphs:
            self.calls[count] += 1
            if self.calls[count] < _WORTH:
                return self.function(argument)
            self.graphs[count] = self._recording(argument)
        graph = self.graphs[count]
        if graph is None:
            return self.function(argument)
        with torch.no_grad():
            return graph(argument)

    def _recording(self, argument: Tensor) -> GraphModule | None:
        try:
            with self.within():
                graph = operations(self.function, argument)
                with torch.no_grad():
                    graph = folded(graph)
            for other in (argument, self.fresh(len(argument))):
                with torch.no_grad():
                    found = graph(other)
                for own, true in zip(found, self.function(other), strict=True):
                    if not torch.allclose(own, true, rtol=1e-10, atol=1e-10, equal_nan=True):
                        return None
        except (ValueError, RuntimeError):  # a branch on a value, or none of the arguments is fine
            return None
        return graph


def folded(graph: GraphModule) -> GraphModule:
    """The same function, with what does not depend on its argument computed now, and equals once.

    Args:
        graph: pure: nothing in it is written in place.
    """
    known: dict[Node, Any] = {}
    seen: dict[tuple[object, str], Node] = {}
    for node in list(graph.graph.nodes):
        if node.op == "get_attr":
            known[node] = getattr(graph, str(node.target))
        elif node.op == "call_function" and callable(node.target):
            if all(source in known for source in node.all_input_nodes):
                arguments, named = map_arg((node.args, node.kwargs), known.__getitem__)
                known[node] = node.target(*arguments, **named)
                continue
            twin = seen.setdefault((node.target, f"{node.args} {node.kwargs}"), node)
            if node.target in _SAME:
                node.replace_all_uses_with(node.args[0])
            elif twin is not node:
                node.replace_all_uses_with(twin)
    for number, (node, value) in enumerate(known.items()):
        if isinstance(value, Tensor) and any(user not in known for user in node.users):
            graph.register_buffer(f"known_{number}", value)
            with graph.graph.inserting_before(node):
                place = graph.graph.get_attr(f"known_{number}")
            node.replace_all_uses_with(place)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph
