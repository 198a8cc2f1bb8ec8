"""Do the tests notice a wrong gradient? Every rule of every op is broken in every way below, and the card-driven checks run.

    python tests/ops/mutants.py              all ops (a few minutes): the score, and every survivor with its reason
    python tests/ops/mutants.py tanh conv2d  some

A mutant changes one op's gradients at run time (the rules themselves stay as they are), in one of two worlds: "raw", when a
rule runs on arrays, and "recorded", when it runs on Tensors under create_graph. It is killed if a check of some card that
uses the op fails. Start at MUTATIONS, then `kill`.
"""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import checks
import numpy as np

from minigen import set_backend
from minigen.autograd import tape
from minigen.autograd.cards import CARDS, OpCard
from minigen.autograd.gradcheck import GradcheckError, check_card
from minigen.autograd.tape import OPS, Array, Node, Op, op, wrap

engine = importlib.import_module("minigen.autograd.grad")  # the package shows the functions of these names
checker = importlib.import_module("minigen.autograd.gradcheck")

WORLDS = ("raw", "recorded")
SAMPLES = 12  # examples per card
CARDS_PER_OP = 5

# Mutants that change nothing, or nothing that a gradient is. (mutation, op) -> why; "*" stands for any op.
EQUIVALENT: dict[tuple[str, str], str] = {
    ("take factors for constants", name): "the rule needs the sign of x only, whose derivative is 0"
    for name in ("relu", "leaky_relu")
}


# ---- what can go wrong in a rule: each takes the op's gradients, as `compute` returns them, and breaks them


@dataclass
class Site:
    """One call of a rule."""

    node: Node
    g: Any
    compute: Callable[..., list]  # compute(node, g) -> the gradients

    def gradients(self) -> list:
        return list(self.compute(self.node, self.g))


def drop_the_cotangent(site: Site) -> list:
    parts = site.g if isinstance(site.g, tuple) else (site.g,)
    ones = tuple(like(p, np.ones_like(raw(p))) for p in parts)
    return list(site.compute(site.node, ones if isinstance(site.g, tuple) else ones[0]))


def flip_the_sign(site: Site) -> list:
    return [None if d is None else -d for d in site.gradients()]


def scale_by_1e_5(site: Site) -> list:
    return [None if d is None else d * (1 + 1e-5) for d in site.gradients()]


def transpose(site: Site) -> list:
    return [permuted(d, lambda n: n.T.reshape(-1) if n.ndim > 1 else n[::-1]) for d in site.gradients()]


def off_by_one(site: Site) -> list:
    return [permuted(d, lambda n: np.roll(n.reshape(-1), 1)) for d in site.gradients()]


def leak_float64(site: Site) -> list:
    return [None if d is None else OPS["astype"](d, np.float64) if raw(d).dtype == np.float32 else d for d in site.gradients()]


def detach(site: Site) -> list:
    return [None if d is None else like(d, raw(d)) for d in site.gradients()]


def forget_input(i: int) -> Callable[[Site], list]:
    def mutate(site: Site) -> list:
        return [like(d, np.zeros_like(raw(d))) if d is not None and j == i else d for j, d in enumerate(site.gradients())]

    return mutate


def swap(i: int, j: int) -> Callable[[Site], list]:
    def mutate(site: Site) -> list:
        d = site.gradients()
        if d[i] is not None and d[j] is not None:
            d[i], d[j] = d[j], d[i]
        return d

    return mutate


def forget_factor(k: int) -> Callable[[Site], list]:
    """A value that the rule uses is taken to be 1 everywhere."""

    def mutate(site: Site) -> list:
        node = copy.copy(site.node)
        node.saved = list(node.saved)
        if k < len(node.saved) and isinstance(node.saved[k], np.ndarray) and node.saved[k].dtype.kind in "fc":
            node.saved[k] = np.ones_like(node.saved[k])
        return list(site.compute(node, site.g))

    return mutate


def forget_to_differentiate_factors(site: Site) -> list:
    """Under create_graph the values that the rule uses are taken for constants."""
    with mock.patch.object(engine, "_as_tensors", lambda node: list(node.saved)):
        return site.gradients()


def raw(d: Any) -> np.ndarray:
    return d.data if hasattr(d, "node") else d


def like(d: Any, array: np.ndarray) -> Any:
    return wrap(array, None, [0]) if hasattr(d, "node") else array


@op
def mutant_take(x: Array, index: np.ndarray) -> Array:
    """The elements of x in another order."""
    return x.reshape(-1)[index].reshape(x.shape)


mutant_take.vjp(x=lambda g, index: mutant_take(g, np.argsort(index)))


def permuted(d: Any, order: Callable[[np.ndarray], np.ndarray]) -> Any:
    if d is None or not raw(d).ndim:
        return d
    return mutant_take(d, order(np.arange(raw(d).size).reshape(raw(d).shape)).copy())


def mutations(this: Op, world: str) -> dict[str, Callable[[Site], list] | None]:
    """All ways to break an op. None stands for the one that is not in a rule: forgetting to un-broadcast."""
    count = len(this.inputs) + (3 if this.variadic else 0)
    found: dict[str, Callable[[Site], list] | None] = {
        "drop the cotangent": drop_the_cotangent,
        "flip the sign": flip_the_sign,
        "scale by 1 + 1e-5": scale_by_1e_5,
        "transpose": transpose,
        "off by one": off_by_one,
        "forget to un-broadcast": None,
    }
    if count > 1:
        found |= {f"forget input {i}": forget_input(i) for i in range(count)}
        found |= {f"swap {i} and {i + 1}": swap(i, i + 1) for i in range(count - 1)}
    found |= {f"forget factor {k}": forget_factor(k) for k in range(count + 1 + len(this.aux))}
    if world == "raw":
        return found | {"leak float64": leak_float64}
    return found | {"detach the gradient": detach, "take factors for constants": forget_to_differentiate_factors}


# ---- running a mutant


@dataclass
class Mutant:
    name: str
    op: str
    world: str
    change: Callable[[Site], list] | None
    effect: bool = False  # whether it ever changed a number
    killed: str = ""  # by what

    @property
    def reason(self) -> str:
        return EQUIVALENT.get((self.name, self.op), "") or EQUIVALENT.get((self.name, "*"), "")


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """While it lasts, the op's gradients are wrong."""
    original, fit = engine._gradients, engine._fit

    def mutated(node: Node, g: Any, needed: Any, create_graph: bool) -> Any:
        def compute(node: Node, g: Any) -> list:
            return original(node, g, needed, create_graph)

        here = node.op.name == mutant.op and create_graph == (mutant.world == "recorded")
        if not here:
            return compute(node, g)
        result = mutant.change(Site(node, g, compute))
        mutant.effect = mutant.effect or any(different(a, b) for a, b in zip(result, compute(node, g), strict=True))
        return result

    def not_summed(g: Any, parent: Node, node: Node) -> Any:
        result = fit(g, parent, node)
        here = node.op.name == mutant.op and hasattr(g, "node") == (mutant.world == "recorded")
        if here and raw(g).size > raw(result).size:
            mutant.effect = mutant.effect or bool(raw(result).any())
            return result * (raw(result).size / raw(g).size)  # the mean instead of the sum
        return result

    broken = ("_fit", not_summed) if mutant.change is None else ("_gradients", mutated)
    with mock.patch.object(engine, *broken):
        yield


def different(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is not b
    x, y = raw(a), raw(b)
    history = hasattr(a, "node") and (a.node is None) != (b.node is None)
    return history or x.dtype != y.dtype or x.shape != y.shape or not np.array_equal(x, y)


def kill(mutant: Mutant, users: list[tuple[OpCard, list]]) -> None:
    """Run the checks of the cards that use the op, until one fails."""
    no_search = mock.patch.object(checker._Run, "_worst_entry", return_value="")  # which would take most of the time
    with planted(mutant), set_backend("numpy"), no_search:
        for card, examples in users:
            for i, (args, kwargs) in enumerate(examples):
                try:
                    if mutant.name == "leak float64":
                        checks.check_dtype(card, args, kwargs)
                    else:
                        check_card(card, args, kwargs, seed=i)
                except (AssertionError, ValueError, TypeError, IndexError, ArithmeticError, AttributeError) as error:
                    by = "gradient" if isinstance(error, GradcheckError) else type(error).__name__
                    mutant.killed = f"{by} check of {card.name}, example {i}: {error}"
                    return


# ---- all of them


@dataclass
class Usage(tape.Observer):
    """Which ops have their rules run, on arrays or on Tensors."""

    seen: set[tuple[str, str]] = field(default_factory=set)

    def backward(self, node: Node, g: Any, gradients: Any, seconds: float) -> None:
        parts = g if isinstance(g, tuple) else (g,)
        self.seen.add((node.op.name, "recorded" if hasattr(parts[0], "node") else "raw"))


def examples_of(card: OpCard) -> list:
    """The most telling ones of many: none of the inputs empty or a single number; half of them broadcast, if any do."""
    rng = np.random.default_rng(0)
    draw = checks.Draw(lambda low, high: int(rng.integers(low, high, endpoint=True)))
    drawn = [card.sample(draw) for _ in range(8 * SAMPLES)]
    sizes = [[args[i].size for i in card.wrt] for args, _ in drawn]
    by_size = sorted(range(len(drawn)), key=lambda n: min(sizes[n], default=0) <= 1)
    mixed = [n for n in by_size if len(set(sizes[n])) > 1 and 0 not in sizes[n] and max(sizes[n]) > 2]
    chosen = dict.fromkeys([*by_size[: SAMPLES // 2], *mixed[: SAMPLES // 2], *by_size])
    return [drawn[n] for n in chosen][:SAMPLES]


def users_of_ops(names: list[str] | None = None) -> dict[tuple[str, str], list[tuple[OpCard, list]]]:
    """(op, world) -> the cards whose checks run its rule there: that of the same name first, then the simplest.

    names: the cards to look at; all if None. Raises GradcheckError if the checks fail without any mutant.
    """
    users: dict[tuple[str, str], list] = {}
    for card in CARDS.values():
        if not card.wrt or (names is not None and card.name not in names):
            continue
        examples = examples_of(card)
        usage = Usage()
        tape.OBSERVERS.append(usage)
        try:
            with set_backend("numpy"):
                for i, (args, kwargs) in enumerate(examples):
                    check_card(card, args, kwargs, seed=i)
        finally:
            tape.OBSERVERS.remove(usage)
        for key in usage.seen:
            users.setdefault(key, []).append((len(usage.seen) * (card.name != key[0]), card, examples))
    return {
        key: [(card, examples) for _, card, examples in sorted(found, key=lambda user: user[0])[:CARDS_PER_OP]]
        for key, found in users.items()
    }


def run(names: list[str] | None = None, kinds: list[str] | None = None, progress: Callable = lambda text: None) -> list[Mutant]:
    """Make and try all mutants of the ops that the named cards use; of some kinds only, if given."""
    tried = []
    for (name, world), users in sorted(users_of_ops(names).items()):
        if name not in OPS or (world == "recorded" and OPS[name].spec is not None):
            continue  # (a fused op is recorded as another op, its _vjp, which has mutants of its own)
        for kind, change in mutations(OPS[name], world).items():
            if kinds is None or kind in kinds:
                mutant = Mutant(kind, name, world, change)
                kill(mutant, users)
                tried.append(mutant)
        progress(f"{name}, {world}")
    return tried


def report(tried: list[Mutant]) -> tuple[str, float, list[Mutant]]:
    """The text that the command prints; the score; the survivors that nothing explains.

    A mutant that never changed a number is not counted: a rule without factors cannot forget one.
    """
    real = [m for m in tried if m.effect or m.killed]
    kinds = sorted({m.name for m in real})
    lines = [f"{'mutation':28s} {'mutants':>8s} {'killed':>8s}"]
    for kind in kinds:
        of_kind = [m for m in real if m.name == kind]
        lines.append(f"{kind:28s} {len(of_kind):8d} {sum(bool(m.killed) for m in of_kind):8d}")
    survivors = [m for m in real if not m.killed]
    unexplained = [m for m in survivors if not m.reason]
    counted = [m for m in real if m.killed or not m.reason]
    score = sum(bool(m.killed) for m in counted) / max(len(counted), 1)
    lines.append(f"{'total':28s} {len(real):8d} {sum(bool(m.killed) for m in real):8d}")
    lines.append(f"\nmutation score {100 * score:.2f} %: {len(counted) - len(unexplained)} of {len(counted)} killed")
    for m in survivors:
        lines.append(f"  survived: {m.op}, {m.world}, {m.name}: {m.reason or 'UNEXPLAINED'}")
    return "\n".join(lines), score, unexplained


def main() -> int:
    names = sys.argv[1:] or None
    unknown = [name for name in names or [] if name not in CARDS]
    if unknown:
        print(f"no op called {', '.join(unknown)}; choose among {', '.join(sorted(CARDS))}")
        return 2
    tried = run(names, progress=lambda text: print(f"\r{text:60s}", end="", file=sys.stderr))
    print(file=sys.stderr)
    text, score, unexplained = report(tried)
    print(text)
    return 0 if score >= 0.99 and not unexplained else 1


if __name__ == "__main__":
    raise SystemExit(main())
