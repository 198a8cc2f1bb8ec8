"""Gradients of any order: the walk back along the tape. Start at `grad`.

The walk visits nodes newest first (by creation number), so every node has received all its cotangents before its rule
runs; it is a loop, so a chain of 100,000 ops is fine. Rules are called on raw arrays, or, with create_graph=True, on
Tensors, and then record themselves. What each rule returns passes one gate, `_fit`: summed down to the input's shape if
the input was broadcast, and held to the input's dtype.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from operator import attrgetter
from time import perf_counter
from typing import Any

import numpy as np

from . import tape
from .tape import OBSERVERS, OPS, SELECT, Leaf, Node, Op, describe, device_of, enable_grad, op, wrap
from .tensor import Tensor

Array = Any

_number = attrgetter("number")


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> Any:
    """The gradient of `outputs`, contracted with `grad_outputs`, with respect to `inputs`.

    outputs: Tensors that require a gradient; scalars, unless their cotangents are given in `grad_outputs` (same shape).
    inputs: Tensors that require a gradient: leaves, or results of ops on the way.
    create_graph: record the backward pass, so that the result can be differentiated again, to any order.
    allow_unused: None for an input that outputs do not depend on, instead of an error.

    Returns one Tensor for a single Tensor `inputs`, else a tuple. Raises ValueError for outputs or inputs without
    history, for a non-scalar output without cotangent and for an unused input; RuntimeError if a value that backward
    needs was changed in place. The graph stays usable for as long as its outputs are referenced.
    """
    targets: list[Tensor] = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    nodes: list[Node] = []
    for i, target in enumerate(targets):
        if target.node is None:
            raise ValueError(f"grad: input {i} requires no gradient; make it with Tensor(..., requires_grad=True)")
        nodes.append(target.node)
    seeds = _seeds(outputs, grad_outputs, create_graph)
    found = _walk(seeds, set(nodes), create_graph)
    taken = {id(_owner(g)) for _, g in seeds}
    results: list[Tensor | None] = []
    for i, node in enumerate(nodes):
        g = found.get(node)
        if g is None and not allow_unused:
            raise ValueError(
                f"grad: outputs do not depend on input {i} of shape {node.shape}; allow_unused=True gives None for it"
            )
        results.append(g if g is None or isinstance(g, Tensor) else wrap(_own(g, taken), None, [0]))
    return results[0] if isinstance(inputs, Tensor) else tuple(results)


def backward(output: Tensor, grad_output: Any = None) -> None:
    """Add the gradient of `output` into `.grad` of every leaf it depends on: what `Tensor.backward()` does.

    There is no create_graph here: a graph kept alive by a leaf is a reference cycle. Use `grad` for higher orders.
    """
    seeds = _seeds(output, grad_output, create_graph=False)
    for leaf, g in _walk(seeds, None, create_graph=False).items():
        assert isinstance(leaf, Leaf)
        if leaf.grad is None:
            leaf.grad = wrap(_as_array(g).copy(), None, [0])
        else:
            leaf.grad.data += g
            leaf.grad.mark_written()


def _seeds(outputs: Any, grad_outputs: Any, create_graph: bool) -> list[tuple[Node, Array]]:
    """Pair the node of each output with its cotangent, checked."""
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    if grad_outputs is None:
        given = [None] * len(outputs)
    else:
        given = list(grad_outputs) if isinstance(grad_outputs, tuple | list) else [grad_outputs]
    if len(given) != len(outputs):
        raise ValueError(f"grad: {len(outputs)} outputs but {len(given)} grad_outputs")
    seeds = []
    for i, (out, g) in enumerate(zip(outputs, given, strict=True)):
        if out.node is None:
            raise ValueError(
                f"grad: output {i} has no history: nothing that requires a gradient went into it, or no_grad was on"
            )
        if g is None:
            if out.shape != ():
                raise ValueError(f"grad: output {i} has shape {out.shape}: reduce it to a scalar, or give grad_outputs")
            g = np.ones_like(out.data)
        raw = g.data if isinstance(g, Tensor) else np.asarray(g, out.dtype) if device_of(g) == "cpu" else g
        if raw.shape != out.shape or raw.dtype != out.dtype:
            raise ValueError(
                f"grad: grad_outputs[{i}] is {describe(raw)}, but output {i} is {describe(out.data)}; they must be alike"
            )
        seeds.append((out.node, (g if isinstance(g, Tensor) else wrap(raw, None, [0])) if create_graph else raw))
    return seeds


def _own(g: Array, taken: set[int]) -> Array:
    """g as an array that shares memory with no other result, nor with the caller's cotangent: those are `taken`."""
    g = _as_array(g)
    if id(_owner(g)) in taken:
        return g.copy()
    taken.add(id(_owner(g)))
    return g


def _owner(g: Any) -> Any:
    """The array whose memory it is."""
    base = getattr(g, "base", None)
    return g if base is None else base


def _as_array(g: Array) -> Array:
    return np.asarray(g) if isinstance(g, np.generic) else g


def _reachable(seeds: Iterable[tuple[Node, Array]]) -> tuple[list[Node], set[Node]]:
    """All nodes that the seeds depend on, newest first; and the leaves among them."""
    nodes = list({node: None for node, _ in seeds})
    seen = set(nodes)
    leaves: set[Node] = set()
    for node in nodes:  # grows while it is read: breadth first, without recursion
        if node.op is None:
            leaves.add(node)
        for parent in node.parents:
            if parent is not None and parent not in seen:
                seen.add(parent)
                nodes.append(parent)
    nodes.sort(key=_number, reverse=True)
    return nodes, leaves


def _leading_to(targets: set[Node], nodes: list[Node]) -> set[Node]:
    """Those of `nodes` (newest first) from which a target can be reached: no other rule needs to run."""
    needed = set(targets)
    for node in reversed(nodes):
        for parent in node.parents:
            if parent in needed:
                needed.add(node)
                break
    return needed


def _walk(seeds: list[tuple[Node, Array]], targets: set[Node] | None, create_graph: bool) -> dict[Node, Array]:
    """Carry the seeds' cotangents back to the targets (None: all leaves). Returns the cotangent of each that was reached."""
    nodes, leaves = _reachable(seeds)
    if targets is None:
        targets = leaves
    needed = None if leaves <= targets else _leading_to(targets, nodes)  # None: every rule, as in training
    found: dict[Node, Array] = {}
    pending: dict[Node, Any] = {}  # the sum of the cotangents a node has received; a list of them for several outputs
    own: set[Node] = set()  # nodes whose sum is a fresh array of ours, which may be added to in place
    for node, g in seeds:
        pending[node] = pending[node] + g if node in pending else g
    with enable_grad(), np.errstate(all="ignore"):  # an Inf or a NaN is carried on, as in the compiled kernels
        for node in nodes:
            g = pending.pop(node, None)
            if g is None:
                continue
            if node in targets:
                found[node] = g
            if needed is not None and node not in needed:
                continue
            plan = node.plan
            if plan is None:  # a leaf, or one result of an op with several
                if node.op is SELECT:
                    _receive_part(pending, node, g)
                continue
            if plan.several:
                g = _complete(node, g, create_graph)
            run = _observed if OBSERVERS else _gradients
            gradients = run(node, g, needed, create_graph)
            for parent, gi in zip(node.parents, gradients):  # noqa: B905 - equal lengths, and this is the hot loop
                if gi is None or parent is None:
                    continue
                if create_graph and type(gi) is not Tensor:
                    gi = wrap(_as_array(gi), None, [0])
                like = gi.data if create_graph else gi
                if like.dtype is not parent.dtype or like.shape != parent.shape:
                    gi = _fit(gi, parent, node)
                if parent not in pending:
                    pending[parent] = gi  # never written to: it may be the cotangent of others too
                elif parent not in own:
                    pending[parent] = accumulate(pending[parent], gi) if create_graph else pending[parent] + gi
                    own.add(parent)
                elif create_graph:
                    pending[parent] = _accumulated(pending[parent], gi)
                else:
                    pending[parent] += gi
    return found


@op
def accumulate(*terms: Array) -> Array:
    """The sum of the cotangents that a node receives: one node of the graph, however many they are."""
    return functools.reduce(np.add, terms)


accumulate.vjp(lambda g, terms_shapes: [g] * len(terms_shapes))


def _accumulated(total: Tensor, g: Tensor) -> Tensor:
    """g added to a result of `accumulate` that nobody has seen yet: in place, and as one more input of the same node."""
    node = total.node
    if node is None and g.node is not None:
        return accumulate(total, g)
    data = total.data
    data += g.data
    if node is not None and g.node is not None:
        node.parents.append(g.node)
        node.number = tape.next_number()  # it is newer than its inputs
    return total


def _observed(node: Node, g: Any, needed: set[Node] | None, create_graph: bool) -> Sequence:
    start = perf_counter()
    gradients = _gradients(node, g, needed, create_graph)
    for observer in OBSERVERS:
        observer.backward(node, g, gradients, perf_counter() - start)
    return gradients


def _gradients(node: Node, g: Any, needed: set[Node] | None, create_graph: bool) -> Sequence:
    """The gradient of each input of a node, None where none is needed: the one place that calls rules."""
    plan, saved = node.plan, node.saved
    if node.number < tape.last_write:
        _check_unwritten(node)
    needs = plan.wants if needed is None else [parent in needed for parent in node.parents]
    if create_graph:
        saved = _as_tensors(node)
        if node.op.spec is not None:
            return _fused_vjp(node, g, saved, needs)
    if plan.joint is not None:
        return plan.joint.function(g, *plan.arguments(plan.joint, node, saved, needs))
    gradients: list[Any] = []
    for need, (function, places, rule) in zip(needs, plan.rules):  # noqa: B905 - equal lengths, and this is the hot loop
        if not need:
            gradients.append(None)
        elif places is None:
            gradients.append(function(g, *plan.arguments(rule, node, saved, needs)))
        elif not places:
            gradients.append(function(g))
        elif len(places) == 1:
            gradients.append(function(g, saved[places[0]]))
        else:
            gradients.append(function(g, *[saved[i] for i in places]))
    return gradients


def _receive_part(pending: dict, selected: Node, g: Array) -> None:
    """Add the cotangent of one result of an op with several into the op's list, at its place."""
    node = selected.parents[0]
    parts = pending.setdefault(node, [None] * len(node.shape))
    i = selected.params["index"]
    parts[i] = g if parts[i] is None else parts[i] + g


def _complete(node: Node, parts: list, create_graph: bool) -> tuple:
    """Zeros for the results of an op that nothing depended on."""
    like = next(p for p in parts if p is not None)
    module_of = like.data if isinstance(like, Tensor) else like
    filled = []
    for part, shape, dtype in zip(parts, node.shape, node.dtype, strict=True):
        if part is None:
            zero = np.zeros_like(module_of, shape=shape, dtype=dtype)
            part = wrap(zero, None, [0]) if create_graph else zero
        filled.append(part)
    return tuple(filled)


def _check_unwritten(node: Node) -> None:
    """Raise RuntimeError if a value that the rules of a node need was changed in place after the node was made."""
    for value, cell in zip(node.saved, node.cells, strict=False):  # auxiliary results have no cell
        if cell is not None and cell[0] > node.number:
            raise RuntimeError(
                f"backward of {node.op.name}: a value that it needs, {describe(value)}, was changed in place after "
                f"{node.op.name} used it; change a copy, or do it after backward"
            )


def _as_tensors(node: Node) -> Sequence:
    """The saved values as Tensors: an input made by the node's parent, the result by the node, a constant by none."""
    if not node.saved:
        return node.saved
    saved, cells = list(node.saved), node.cells
    makers = (*node.parents, None if node.plan.several else node)
    for i in node.plan.kept:
        if cells[i] is not None or makers[i] is not None:
            saved[i] = wrap(saved[i], makers[i], cells[i])
    return saved


def _fit(g: Array, parent: Node, node: Node) -> Array:
    """Hold the gradient that a rule returned to its input: sum over broadcast axes, keep the dtype. Never enlarges."""
    if g.dtype != parent.dtype:
        results = node.dtype if node.op.outputs != 1 else (node.dtype,)
        if parent.dtype in results:
            raise TypeError(f"the gradient rule of {node.op.name} turned {parent.dtype} into {g.dtype}")
        g = OPS["astype"](g, dtype=parent.dtype)  # the op itself promoted this input
    return sum_to(g, parent.shape, node.op.name) if g.shape != parent.shape else g


def sum_to(g: Array, shape: tuple[int, ...], name: str = "sum_to") -> Array:
    """Sum g over the axes along which an array of `shape` was broadcast: the only place that un-broadcasts.

    Raises ValueError where it was not broadcast.
    """
    extra = g.ndim - len(shape)
    axes = tuple(i for i in range(g.ndim) if i < extra or (shape[i - extra] == 1 and g.shape[i] != 1))
    kept = tuple(1 if i in axes else n for i, n in enumerate(g.shape))[max(extra, 0) :]
    if extra < 0 or kept != tuple(shape):
        raise ValueError(f"the gradient rule of {name} returned shape {g.shape} for an input of shape {shape}")
    return OPS["reshape"](OPS["sum"](g, axis=axes), shape=shape)


# ---- fused ops: first order by the fast kernel, higher orders through the spec


@op(view=True)
def alias(x: Array) -> Array:
    """x itself, as a new node: a place to cut a graph at."""
    return x


alias.vjp(x=lambda g: g)


def _fused_vjp(node: Node, g: Any, saved: Sequence, wanted: Sequence[bool]) -> tuple:
    """The wanted gradients of a fused op under create_graph, as the results of *one* recorded op.

    So this backward pass runs the same fast kernel as any other. Only where its result is differentiated again is the
    spec taken apart, in `_second_order`.
    """
    this, count = node.op, len(node.parents)
    if this not in _VJP_OPS:

        def forward(*values: Array, node: Node, wanted: Sequence[bool]) -> tuple:
            g = values[: len(values) - len(node.parents)]
            g = g if this.outputs != 1 else g[0]
            needed = {parent for parent, want in zip(node.parents, wanted, strict=True) if want}
            gradients = _gradients(node, g, needed, create_graph=False)
            return tuple(_fit(gi, p, node) for gi, p in zip(gradients, node.parents, strict=True) if p in needed)

        forward.__name__ = f"{this.name}_vjp"
        _VJP_OPS[this] = Op(forward, outputs=0)
        _VJP_OPS[this].vjp(_second_order)
    values = *(g if this.outputs != 1 else (g,)), *saved[:count]
    results = iter(_VJP_OPS[this](*values, node=node, wanted=wanted))
    return tuple(next(results) if want else None for want in wanted)


_VJP_OPS: dict[Op, Op] = {}  # fused op -> the op that computes its gradients


def _second_order(cotangents: tuple, values: tuple, node: Node, wanted: Sequence[bool], needs: Sequence[bool]) -> tuple:
    """The rule of a fused op's `_vjp`: differentiate the gradient of the spec.

    values: the cotangents and then the inputs of the fused op at `node`. With y = spec(x) and first = grad(y, x, g),
    for the inputs x that were wanted, the result is the gradient of <cotangents, first> with respect to g and x.
    """
    again = isinstance(cotangents[0], Tensor)  # whether this pass is recorded too
    outputs = len(values) - len(node.parents)
    used = [need or (i >= outputs and wanted[i - outputs]) for i, need in enumerate(needs)]
    fresh = [_cut(v) if u else v for v, u in zip(values, used, strict=True)]  # so that the walks below stop here
    inputs = fresh[outputs:]
    y = node.op.spec(*inputs, **node.params)
    by = [x for x, want in zip(inputs, wanted, strict=True) if want]
    first = grad(y, by, fresh[:outputs], create_graph=True, allow_unused=True)
    pairs = [(f, c) for f, c in zip(first, cotangents, strict=True) if f is not None and f.node is not None]
    targets = [v for v, n in zip(fresh, needs, strict=True) if n]
    second = iter(grad([f for f, _ in pairs], targets, [c for _, c in pairs], create_graph=again, allow_unused=True))
    gradients: list[Any] = []
    for v, n in zip(fresh, needs, strict=True):
        gi = next(second) if n else None
        if n and gi is None:
            gi = wrap(np.zeros_like(v.data), None, [0])
        gradients.append(gi.data if gi is not None and not again else gi)
    return tuple(gradients)


def _cut(value: Any) -> Tensor:
    """The value as the start of a new graph: a leaf, or an alias of a Tensor that has history."""
    if isinstance(value, Tensor) and value.node is not None:
        return alias(value)
    return Tensor(value.data if isinstance(value, Tensor) else value, requires_grad=True)


tape.register_backward(backward)
