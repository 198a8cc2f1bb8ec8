"""The tape: how an operation runs, and how it is remembered. Start at `Op.of_any`, the one choke point.

One rule, two worlds. An `Op` given raw arrays only runs its forward function. Given at least one Tensor it also records
a `Node`. Its gradient rules are written once, with the same ops and operators, and so run in both worlds too: on raw
arrays in a first-order backward pass, on Tensors when the backward pass is itself to be differentiated.

    @op
    def multiply(x1: Array, x2: Array) -> Array:      # parameters annotated Array are the differentiable inputs
        return np.multiply(x1, x2)

    multiply.vjp(x1=lambda g, x2: g * x2,             # a rule gets the cotangent g and *names what else it needs*:
                 x2=lambda g, x1: g * x1)             # only what some rule names is kept until backward

The names that a rule may use: an input (`x1`), its shape without its data (`x1_shape`), the result (`out`), an
auxiliary result (see `aux`), a parameter (`axis`), and `needs`, the tuple that says which inputs want a gradient.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Sequence
from contextlib import ContextDecorator
from time import perf_counter
from types import TracebackType
from typing import Any

import numpy as np

from .plan import Plan, Rule, bind
from .remedies import describe as describe  # for those above, which see no further down than here
from .remedies import device_of as device_of
from .remedies import raise_explained

Array = Any  # a raw array (numpy.ndarray or cupy.ndarray), or a Tensor of one

ARRAY = ("Array", "typing.Any", "typing.Optional[typing.Any]")  # an input's annotation, also where it is not kept as text

OPS: dict[str, Op] = {}  # every op by name

OBSERVERS: list[Observer] = []  # who watches: the printed tape, the anomaly mode (see observe.py)

new = object.__new__
generic = np.generic  # NumPy's scalars
NO_PARAMS: dict[str, Any] = {}

next_number = itertools.count(1).__next__  # one clock for nodes and for in-place writes

last_write = 0  # the number of the last in-place write to any Tensor: nodes that are newer need no check (see grad.py)

recording = True  # whether ops on Tensors are recorded: see no_grad


class Node:
    """One recorded op: everything that its backward needs, and nothing that points forward in time.

    op       the operation; None for a leaf, that is a Tensor the user made with requires_grad=True
    plan     which rules will run, and what they need (plan.py)
    number   creation number; a node's parents always have smaller ones, so newest-first is a valid backward order
    parents  the node of each input, None for an input that wants no gradient
    saved    inputs + [out] + aux, as raw arrays, with None in place of those that no rule names; () if none is named
    cells    the version cell of each saved value: a one-element list holding the number of its last in-place write
    params   the parameters of the call, by name
    shape, dtype   of the result (tuples of them for an op with several results)
    origin   where in the program it was made; only filled while an observer asks for it
    """

    __slots__ = ("cells", "dtype", "number", "op", "origin", "params", "parents", "plan", "saved", "shape")

    op: Any
    plan: Any
    number: int
    parents: Any
    saved: Any
    cells: Any
    params: dict[str, Any]
    shape: Any
    dtype: Any
    origin: str


class Leaf(Node):
    """The node of a Tensor that the user made with requires_grad=True. `grad` is what `Tensor.grad` shows."""

    __slots__ = ("grad",)

    grad: Any

    def __init__(self, shape: tuple[int, ...], dtype: Any):
        self.op, self.plan, self.number = None, None, next_number()
        self.parents, self.saved, self.cells, self.params = (), (), (), NO_PARAMS
        self.shape, self.dtype, self.grad = shape, dtype, None


class Op:
    """A differentiable operation: a forward function on raw arrays, and its gradient rules (see the top of this file).

    view      the result may share memory with the first input, so an in-place write to one is a write to the other
    outputs   how many arrays forward returns: 1, or as a tuple more than one (0: as many as there are)
    aux       names of further arrays that forward returns for the rules only: `return out, (mean, rstd)`
    constant  its result changes in steps, if at all, so it passes no gradient and needs no rule
    spec      for a fused op: the same function as a composition of ops. It is the documentation, the oracle of the
              tests, and what second and higher derivatives go through (see grad.py)
    """

    def __init__(
        self,
        forward: Callable,
        *,
        view: bool = False,
        outputs: int = 1,
        aux: Sequence[str] = (),
        spec: Callable | None = None,
        constant: bool = False,
    ):
        self.name = forward.__name__.lstrip("_")
        if self.name in OPS:
            raise ValueError(f"op {self.name!r} is defined twice")
        self.forward, self.view, self.outputs, self.aux, self.spec = forward, view, outputs, tuple(aux), spec
        self.constant = constant
        self.__doc__, self.__name__, self.__module__ = forward.__doc__, forward.__name__, forward.__module__
        self.__wrapped__ = forward  # help() and inspect.signature() show the forward function's signature
        parameters = inspect.signature(forward).parameters.values()
        arrays = [p for p in parameters if str(p.annotation).startswith(ARRAY)]
        self.variadic = next((p.name for p in arrays if p.kind is p.VAR_POSITIONAL), "")
        self.inputs = [p.name for p in arrays if p.name != self.variadic]
        self.defaults = {p.name: p.default for p in parameters if p not in arrays}  # the parameters, in order
        self.rules: list[Rule | None] | None = None  # one per input
        self.joint: Rule | None = None  # or one for all of them
        self.arity = -1 if self.variadic else len(self.inputs)
        self.plans: dict[int, Plan] = {}  # by a bit mask of the inputs that want a gradient
        self.differentiable = False
        plain = not (view or self.aux or constant) and outputs == 1
        self.short = self.arity if plain and self.arity in (1, 2) else 0  # whether of_one or of_two can run it
        OPS[self.name] = self

    def vjp(self, joint: Callable | None = None, **rules: Callable) -> None:
        """Give the gradient rules (vector-Jacobian products): one per input by name, or one that returns them all.

        A rule returns the gradient of its input, in the broadcast shape: summing down to the input's own shape happens
        once, in grad.py. Raises TypeError for the name of no input.
        """
        self.differentiable = True
        if joint is not None:
            self.joint = Rule(joint, self)
        else:
            unknown = set(rules) - set(self.inputs)
            if unknown:
                raise TypeError(f"op {self.name}: rules for {sorted(unknown)}, but its inputs are {self.inputs}")
            self.rules = [Rule(rules[name], self) if name in rules else None for name in self.inputs]

    def __call__(self, *args: Any, **params: Any) -> Any:
        """Run the op; record it if a Tensor that requires a gradient is among the inputs."""
        if not params and len(args) == self.short:
            return self.of_one(args[0]) if self.short == 1 else self.of_two(args[0], args[1])
        return self.of_any(args, params)

    def of_any(self, args: tuple, params: dict) -> Any:
        """Run the op on any inputs with any parameters, and record it. Everything passes here, if not one of the two below."""
        if params or len(args) != self.arity:
            args, params = bind(self, args, params)
        raw: Any = []
        cells: Any = []
        parents: list[Node | None] = []
        is_tensor, wants, bit = False, 0, 1
        for a in args:
            if type(a) is Tensor:
                is_tensor = True
                raw.append(a.data)
                cells.append(a.version)
                parents.append(node := a.node)
                if node is not None:
                    wants |= bit
            else:
                raw.append(a)
                cells.append(None)
                parents.append(None)
            bit += bit
        try:
            out = _observed(self, raw, params) if OBSERVERS else self.forward(*raw, **params)
        except (ValueError, TypeError, IndexError) as error:
            raise_explained(self, raw, error)
        aux: Sequence = ()
        if self.aux:
            out, aux = out
        if not is_tensor:
            return out  # the world of raw arrays ends here
        if isinstance(out, generic):
            out = np.asarray(out)  # NumPy returns scalars where an array has no dimensions
        version = cells[0] if self.view and cells[0] is not None and _is_view(out, raw[0]) else [0]
        if not wants or not recording or self.constant:
            return wrap(out, None, version) if self.outputs == 1 else tuple([wrap(o, None, [0]) for o in out])
        wants |= bit  # a mark above the last input, so that the key also tells how many there are
        plan = self.plans.get(wants) or self._plan(wants)
        saved: Sequence = ()
        if plan.kept or aux:
            saved = [value if keep else None for value, keep in zip((*raw, out), plan.keep, strict=True)] + [*aux]
            cells = [cell if keep else None for cell, keep in zip((*cells, version), plan.keep, strict=True)]
        else:
            cells = ()
        result = _recorded(self, plan, parents, saved, cells, params, out, version)
        if self.outputs == 1:
            return result
        parent = (result.node,)  # several results: one node for the op, and a `select` node for each of them
        return tuple([_recorded(SELECT, None, parent, (), (), {"index": i}, o, [0]) for i, o in enumerate(out)])

    # Small ops spend more time here than in NumPy. Most have one or two inputs and no parameters: for these, the same
    # written out, without a loop. Whoever observes sees them pass through `of_any`.

    def of_one(self, x: Any) -> Any:
        """`of_any` for one input."""
        if OBSERVERS:
            return self.of_any((x,), NO_PARAMS)
        is_tensor = type(x) is Tensor
        a = x.data if is_tensor else x
        try:
            out = self.forward(a)
        except (ValueError, TypeError, IndexError) as error:
            raise_explained(self, [a], error)
        if not is_tensor:
            return out
        if isinstance(out, generic):
            out = np.asarray(out)
        node = x.node
        if node is None or not recording:
            return wrap(out, None, [0])
        plan = self.plans.get(3) or self._plan(3)
        version = [0]
        if not plan.kept:
            return _recorded(self, plan, (node,), (), (), NO_PARAMS, out, version)
        keep, keep_out = plan.keep
        saved = (a if keep else None, out if keep_out else None)
        cells = (x.version if keep else None, version if keep_out else None)
        return _recorded(self, plan, (node,), saved, cells, NO_PARAMS, out, version)

    def of_two(self, x1: Any, x2: Any) -> Any:
        """`of_any` for two inputs."""
        if OBSERVERS or self.short != 2:
            return self.of_any((x1, x2), NO_PARAMS)
        a, b, node1, node2, cell1, cell2 = x1, x2, None, None, None, None
        if type(x1) is Tensor:
            a, node1, cell1 = x1.data, x1.node, x1.version
        if type(x2) is Tensor:
            b, node2, cell2 = x2.data, x2.node, x2.version
        try:
            out = self.forward(a, b)
        except (ValueError, TypeError, IndexError) as error:
            raise_explained(self, [a, b], error)
        if cell1 is None and cell2 is None:
            return out
        if isinstance(out, generic):
            out = np.asarray(out)
        version = [0]
        wants = (1 if node1 is not None else 0) | (2 if node2 is not None else 0)
        if not wants or not recording:
            return wrap(out, None, version)
        plan = self.plans.get(wants | 4) or self._plan(wants | 4)
        if not plan.kept:
            return _recorded(self, plan, (node1, node2), (), (), NO_PARAMS, out, version)
        keep1, keep2, keep_out = plan.keep
        saved = (a if keep1 else None, b if keep2 else None, out if keep_out else None)
        cells = (cell1 if keep1 else None, cell2 if keep2 else None, version if keep_out else None)
        return _recorded(self, plan, (node1, node2), saved, cells, NO_PARAMS, out, version)

    def _plan(self, wants: int) -> Plan:
        """What to remember when the inputs that `wants` marks want a gradient: see `plans`."""
        if not self.differentiable:
            raise TypeError(f"{self.name} has no gradient rule: give it one by {self.name}.vjp(...), or say constant=True")
        count = wants.bit_length() - 1
        plan = self.plans[wants] = Plan(self, [bool(wants >> i & 1) for i in range(count)])
        return plan

    def __repr__(self) -> str:
        variadic = [f"*{self.variadic}"] if self.variadic else []
        return f"<op {self.name}({', '.join([*self.inputs, *variadic, *self.defaults])})>"


def op(forward: Callable | None = None, **options: Any) -> Any:
    """Decorator: make a forward function an `Op`. `@op` or `@op(view=True, aux=("mean",), spec=...)`."""
    return Op(forward) if forward is not None else lambda f: Op(f, **options)


@op
def select(results: Array, index: int) -> Array:
    """The index-th result of an op with several. Only recorded, never called: see Op.of_any, and the walk in grad.py."""
    return results[index]


SELECT = OPS["select"]


class Observer:
    """Someone who watches every op pass: append one to `OBSERVERS`. Raw arrays are shown, to look at only."""

    def forward(self, op: Op, inputs: list, params: dict, result: Any, seconds: float) -> None:
        """An op has run."""

    def recorded(self, node: Node) -> None:
        """It was recorded as `node`, whose slot `origin` the observer may fill."""

    def backward(self, node: Node, g: Any, gradients: Sequence, seconds: float) -> None:
        """The rule of `node` has turned the cotangent g into the gradients of its inputs (None where not wanted)."""


def _observed(op: Op, raw: list, params: dict) -> Any:
    start = perf_counter()
    result = op.forward(*raw, **params)
    seconds = perf_counter() - start
    for observer in OBSERVERS:
        observer.forward(op, raw, params, result, seconds)
    return result


class no_grad(ContextDecorator):
    """`with no_grad():` ops on Tensors are computed but not recorded. Also allows in-place writes to leaves.

    As `@no_grad()` for a whole function. It holds for the process: threads that record while others do not must take turns.
    """

    value = False

    def __init__(self) -> None:
        self.before: list[bool] = []  # a stack: the same object may be entered again inside its own block

    def __enter__(self) -> None:
        global recording
        self.before.append(recording)
        recording = self.value

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        global recording
        recording = self.before.pop()


class enable_grad(no_grad):
    """`with enable_grad():` records again, inside a `no_grad` block."""

    value = True


def is_recording() -> bool:
    """Whether ops on Tensors are being recorded at this moment."""
    return recording


def _is_view(out: Any, x: Any) -> bool:
    """Whether out is x or a part of its memory. A base alone does not say so: NumPy's x[:, [0, 1]] is a view of a copy."""
    return out is x or (out.base is not None and (out.base is x or out.base is x.base))


# The tape stands below everything else and imports nothing of ours: the two things it needs from above are given to it.


class Tensor:  # replaced by minigen.autograd.tensor.Tensor
    data: Any
    node: Node | None
    version: list[int]


def wrap(data: Any, node: Node | None, version: list[int]) -> Any:
    """A Tensor around a raw result, without looking at it."""
    t = new(Tensor)
    t.data = data
    t.node = node
    t.version = version
    return t


def _recorded(
    op: Op,
    plan: Plan | None,
    parents: Sequence[Node | None],
    saved: Sequence,
    cells: Sequence,
    params: dict,
    out: Any,
    version: list[int],
) -> Any:
    """A Tensor around the result of an op, with a new node: the one place that makes them."""
    node = Node()
    node.op = op
    node.plan = plan
    node.number = next_number()
    node.parents = parents
    node.saved = saved
    node.cells = cells
    node.params = params
    if op.outputs != 1:
        node.shape, node.dtype = tuple(o.shape for o in out), tuple(o.dtype for o in out)
    else:
        node.shape = out.shape
        node.dtype = out.dtype
    if OBSERVERS and op is not SELECT:
        for observer in OBSERVERS:
            observer.recorded(node)
    t = new(Tensor)
    t.data = out
    t.version = version
    t.node = node
    return t


def run_backward(tensor: Any, grad_output: Any) -> None:
    """What Tensor.backward() does; replaced by minigen.autograd.grad.backward."""
    raise RuntimeError("minigen.autograd.grad has not been imported")


def register_tensor(cls: type) -> None:
    """Tell the tape which class wraps the results."""
    global Tensor
    Tensor = cls  # type: ignore[misc, assignment]


def register_backward(function: Callable[[Any, Any], None]) -> None:
    """Tell the tape what Tensor.backward() does."""
    global run_backward
    run_backward = function  # type: ignore[assignment]
