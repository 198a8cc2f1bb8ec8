"""How an op is called and differentiated: its arguments, its gradient rules, and what each of them needs. Start at `Plan`.

A rule is an ordinary function whose parameters say what it needs: see the top of tape.py, where ops are made and recorded. Here
the names are turned into places, once for an op, so that a node need not look anything up.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

Op: TypeAlias = Any  # Op and Node stand in tape.py, which imports this file
Node: TypeAlias = Any


class Plan:
    """How an op will be differentiated, given which of its inputs want a gradient. Made once, shared by all its nodes.

    wants   for each input, whether it wants a gradient
    kept    the positions (inputs + out) of the values that some rule names;  keep: for each position, whether it is one
    rules   for each input the triple (function, where in `saved` its arguments are, rule), three times None for an input
            that wants no gradient; where a rule needs more than saved values the second is None, see `arguments`
    joint   the rule that returns all gradients at once, if the op has one
    several whether the op has several results
    """

    __slots__ = ("joint", "keep", "kept", "rules", "several", "wants")

    def __init__(self, op: Op, wants: list[bool]):
        self.wants = tuple(wants)
        self.several = op.outputs != 1
        self.joint = op.joint
        if op.joint is not None:
            chosen: list[Rule | None] = [op.joint]
        else:
            chosen = [rule if want else None for rule, want in zip(op.rules or [], wants, strict=True)]
        for name, rule, want in zip(op.inputs, chosen, wants, strict=False):
            if want and rule is None and op.joint is None:
                raise TypeError(f"{op.name} has no gradient with respect to {name!r}: pass {name}.detach(), or a plain array")
        kept = set().union(*(rule.positions for rule in chosen if rule is not None))
        if op.spec is not None or any(kind == "all" for rule in chosen if rule for kind, _ in rule.sources):
            kept |= set(range(len(wants)))  # a fused op's second derivative runs its spec, on every input
        self.kept = sorted(i for i in kept if i <= len(wants))
        self.keep = tuple(i in kept for i in range(len(wants) + 1))
        self.rules = [(rule.function, rule.places, rule) if rule is not None else (None, None, None) for rule in chosen]

    def arguments(self, rule: Rule, node: Node, saved: Sequence, needs: tuple[bool, ...]) -> list:
        """The values of a rule's arguments after the cotangent."""
        values: list[Any] = []
        for kind, key in rule.sources:
            if kind == "value":
                values.append(saved[key])
            elif kind == "param":
                values.append(node.params.get(*key))
            elif kind == "shape":
                values.append(node.parents[key].shape)
            elif kind == "needs":
                values.append(needs)
            elif kind == "all":
                values.append(tuple(saved[: len(node.parents)]))
            else:
                values.append([None if p is None else p.shape for p in node.parents])
        return values


class Rule:
    """A gradient rule, with the names it needs resolved to where their values are found.

    sources: for each argument after the cotangent, a pair: ("value", position in inputs + out + aux), ("shape", input),
    ("param", (name, default)), ("needs", None), or for a variadic op ("all", None) and ("shapes", None).
    """

    __slots__ = ("function", "places", "positions", "sources")

    def __init__(self, function: Callable, op: Op):
        self.function = function
        self.sources = [_source(op, name) for name in list(inspect.signature(function).parameters)[1:]]
        self.positions = {key for kind, key in self.sources if kind == "value"}
        only_values = all(kind == "value" for kind, _ in self.sources)
        self.places = tuple(key for _, key in self.sources) if only_values else None


def _source(op: Op, name: str) -> tuple[str, Any]:
    """Where the argument `name` of a gradient rule is found: see Rule."""
    layout = [*op.inputs, "out", *op.aux]
    if name in layout:
        return "value", layout.index(name)
    if name == "needs":
        return "needs", None
    if name in op.defaults:
        return "param", (name, op.defaults[name])
    if name.removesuffix("_shape") in op.inputs:
        return "shape", op.inputs.index(name.removesuffix("_shape"))
    if op.variadic and name == op.variadic:
        return "all", None
    if op.variadic and name == f"{op.variadic}_shapes":
        return "shapes", None
    raise TypeError(f"op {op.name}: a gradient rule names {name!r}, which the op does not have")


def bind(op: Op, args: tuple, params: dict) -> tuple[tuple, dict]:
    """Sort a call's arguments: inputs into args, parameters into params, whichever way they were passed.

    Raises TypeError for too many, too few, or one twice.
    """
    if op.variadic or (len(args) == op.arity and params.keys().isdisjoint(op.inputs)):
        return args, params
    if len(args) > len(op.inputs):
        names = list(op.defaults)[: len(args) - len(op.inputs)]
        if len(names) < len(args) - len(op.inputs):
            raise TypeError(f"{op.name} takes {len(op.inputs) + len(op.defaults)} arguments, got {len(args)}")
        params = {**dict(zip(names, args[len(op.inputs) :], strict=True)), **params}
        args = args[: len(op.inputs)]
    if len(args) < op.arity:
        given = dict(zip(op.inputs, args, strict=False))
        twice = given.keys() & params.keys()
        if twice:
            raise TypeError(f"{op.name} got {sorted(twice)} twice")
        given |= {name: params[name] for name in op.inputs if name in params}
        defaults = inspect.signature(op.forward).parameters
        args = tuple(given.get(name, defaults[name].default) for name in op.inputs)
        if any(a is inspect.Parameter.empty for a in args):
            raise TypeError(f"{op.name} needs {', '.join(op.inputs)}")
        params = {name: value for name, value in params.items() if name not in given}
    return args, params
