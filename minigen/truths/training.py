"""Truth train-step: what a training step does to the parameters of a model, whatever its family. Start at `train_step`.

A loss can be right, and training wrong: the optimiser lacks a layer, gradients pile up, a player trains on the other's loss.
With gradient descent in the place of the model's optimisers a step is known exactly:  p ← p - η ∂loss/∂p. The gradient is that
of a twin: the same model in the same state, which sees the same data and draws the same noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor, grad
from ..autograd.tape import Leaf, Node
from ..models.gan import GANConfig
from ..nn import parameter
from ..optim import SGD, FlatParameters
from ..random import Generator
from .gan import Point, Slope
from .truth import Finding, Truth

EXAMPLES = ("example", "example_images", "example_8x8")
RATE = 1 / 512  # η
BATCH = 16
ROUND_OFF = 1e-3  # of numbers of order 1, taken from differences of parameters in float32

Gradients = list[np.ndarray]  # one for each parameter


def train_step(cls: Any) -> list[Finding]:
    """Two steps, each of which must be -η ∂loss/∂p of every parameter on which the loss depends.

    Step 0 comes before: what starts from the first batch, such as an actnorm, has started then. All gradients are 0 after it,
    so that step 1 shows what a step is, and step 2 whether it also takes the gradients of step 1.
    """
    make = next(getattr(cls, name) for name in EXAMPLES if hasattr(cls, name))
    own, twin = (make(Generator(0)).astype(np.float32).train() for _ in range(2))  # the precision that models train in
    optimizers = {name: SGD(o.flat.parameters, RATE) for name, o in own.optimizers().items()}
    trained = {id(p.node) for o in twin.optimizers().values() for p in o.flat.parameters}
    x, y = _data(own.data_shape), {"y": np.arange(BATCH) % own.classes} if getattr(own, "classes", 0) else {}
    own.train_step(x, Generator(1), optimizers, **y)
    for p in own.parameters():
        if p.grad is not None:
            p.grad.data[...] = 0
    findings, before = [], [np.zeros(p.shape) for p in own.parameters()]
    for i in (1, 2):
        old = _state(own)
        if hasattr(own, "walk"):
            chains = _watched(own, x, i, optimizers)
            loss = _contrast(own, twin, old, x, i, chains)
        else:
            own.train_step(x, Generator(1 + i), optimizers, **y)
            loss = _loss(twin, old, x, i, y)
        moved = [p.data - old[name] for name, p in own.named_parameters()]
        found = grad(loss, twin.parameters(), allow_unused=True)
        gradients = [np.zeros(p.shape) if g is None else g.data for p, g in zip(twin.parameters(), found, strict=True)]
        if i == 1:
            findings.append(_forgotten(loss, twin, trained))
        findings += _compare(i, moved, gradients, before)
        before = gradients
    return findings


def _compare(i: int, moved: Gradients, gradients: Gradients, before: Gradients) -> list[Finding]:
    """A step beside what it must be: the share of it that was taken, and the parameter that is farthest off."""
    squares = _dot(gradients, gradients)
    share = -_dot(moved, gradients) / (RATE * squares)
    largest = max(float(np.abs(g).max()) for g in gradients)
    error = max(float(np.abs(m / RATE + g).max()) for m, g in zip(moved, gradients, strict=True)) / largest
    piled = _dot([g + b for g, b in zip(gradients, before, strict=True)], gradients) / squares
    suspects = (
        (0.0, "train_step changes nothing"),
        (-1.0, "it goes up the gradient: a wrong sign"),
        (2.0, "the gradient counts twice, by two calls of backward for instance"),
        (float(BATCH), "the loss is summed over the batch, where `loss` gives the mean"),
        *(((piled, "the gradients of the step before are not set to zero"),) if i == 2 else ()),
    )
    return [
        Finding(f"step {i} along minus the gradient, in units of rate times gradient", share, 1, ROUND_OFF, suspects),
        Finding(f"largest error of a parameter's step {i}, in units of the largest step", error, 0, ROUND_OFF),
    ]


def _forgotten(loss: Tensor, twin: Any, trained: set[int]) -> Finding:
    """How many leaves of the loss's graph no optimiser has. They are named where the model knows them."""
    forgotten = [leaf for leaf in _leaves(loss) if id(leaf) not in trained]
    names = {id(p.node): name for name, p in twin.named_parameters()}
    listed = ", ".join(names.get(id(leaf), f"an unnamed one of shape {leaf.shape}") for leaf in forgotten[:3])
    what = "parameters that the loss depends on, and no optimiser has" + (f" ({listed})" if listed else "")
    known = all(id(leaf) in names for leaf in forgotten)
    why = "optimizers() leaves them out" if known else "their layers are where `parameters()` does not find them"
    return Finding(what, len(forgotten), 0, 0, ((float(len(forgotten)), f"{why}, so they are never trained"),))


def _leaves(loss: Tensor) -> list[Leaf]:
    """The leaves of a graph, each once."""
    seen: set[int] = set()
    found: list[Leaf] = []
    rest: list[Node | None] = [loss.node]
    while rest:
        node = rest.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Leaf):
            found.append(node)
        rest.extend(node.parents)
    return found


def _data(shape: tuple[int, ...]) -> np.ndarray:
    """Points around (1, -1), or images that are black and white: (BATCH, *shape) float32."""
    rng = Generator(9)
    if len(shape) == 3:
        return rng.bernoulli(0.4, (BATCH, *shape))
    return rng.normal((BATCH, *shape)) + np.resize([1, -1], shape).astype(np.float32)


def _state(model: Any) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in model.state_dict().items()}


def _loss(twin: Any, old: dict[str, np.ndarray], x: np.ndarray, i: int, y: dict[str, np.ndarray]) -> Tensor:
    """The model's own loss, in the state before the step."""
    twin.load_state_dict(old)
    rng = Generator(1 + i)
    return twin.loss(twin.preprocess(x, rng), rng, **y).total


# ---- energy-based models, which have no single loss


def _watched(model: Any, x: np.ndarray, i: int, optimizers: dict[str, SGD]) -> np.ndarray:
    """A train_step. Returns the chains as the model's `walk` left them."""
    walked: list[np.ndarray] = []

    def walk(*args: Any, **options: Any) -> Any:
        result = type(model).walk(model, *args, **options)
        walked.append(np.array(result[0]))
        return result

    model.walk = walk
    model.train_step(x, Generator(1 + i), optimizers)
    del model.walk
    return walked[-1]


def _contrast(own: Any, twin: Any, old: dict[str, np.ndarray], x: np.ndarray, i: int, chains: np.ndarray) -> Tensor:
    """E(data) - E(chains), averaged: its gradient is that of -log p, where the chains follow p   (Xie 2016, eq. 3).

    The parameters are those before the step, the buffers those after it, so that a first batch has set them.
    """
    names = {name for name, _ in own.named_parameters()}
    twin.load_state_dict({**_state(own), **{name: array for name, array in old.items() if name in names}})
    data = twin.preprocess(x, Generator(1 + i))
    return twin.energy(data).mean() - twin.energy(chains).mean()


# ---- games


def train_game(cls: Any) -> list[Finding]:
    """A step of the Dirac-GAN   (Mescheder 2018): data 0, samples θ, D(x) = ψ x. Each player goes down its own loss.

        ψ ← ψ - η θ σ(ψ θ),     θ ← θ + η ψ σ(-ψ θ)          non-saturating

    The discriminator goes first (Goodfellow 2014, alg. 1); that both go at once, or the generator first, is no mistake.
    """
    theta, psi, findings = 0.8, 0.6, []
    gan = cls(Point(), Slope(), (1,), GANConfig(loss="non-saturating", norm="none", latent=1))
    gan.generator.theta.data[...], gan.discriminator.psi.data[...] = theta, psi
    parts = {"generator": gan.generator, "discriminator": gan.discriminator}
    optimizers = {name: SGD(part.parameters(), RATE) for name, part in parts.items()}
    for i in (1, 2):
        gan.train_step(np.zeros((BATCH, 1)), Generator(i), optimizers)
        now = float(gan.generator.theta.data), float(gan.discriminator.psi.data)
        steps = {
            "generator": ((now[0] - theta) / RATE, [_sigma(-p * theta) * p for p in (now[1], psi)]),
            "discriminator": ((now[1] - psi) / RATE, [-_sigma(psi * t) * t for t in (theta, now[0])]),
        }
        for player, (found, allowed) in steps.items():
            right = min(allowed, key=lambda value: abs(value - found))
            suspects = (
                (0.0, f"the {player} is not trained: a graph that was cut, or a step that is not taken"),
                (-right, f"the {player} goes up its loss: a wrong sign"),
                (2 * right, f"the {player}'s gradient counts twice"),
                (_other(player, theta, psi, allowed), "the other player's loss moves it too: gradients are not set to zero"),
            )
            findings.append(Finding(f"step {i} of the {player}, over the rate", found, right, ROUND_OFF, suspects))
        theta, psi = now
    return findings


def _other(player: str, theta: float, psi: float, allowed: list[float]) -> float:
    """A step on both losses: of the discriminator's on ψ, and of the generator's, -log σ(ψ θ), on ψ as well; or on θ."""
    if player == "discriminator":
        return allowed[0] + _sigma(-psi * theta) * theta
    return allowed[1] - _sigma(psi * theta) * psi


# ---- averages of parameters


def ema(cls: Any, decay: float = 0.9, steps: int = 200) -> list[Finding]:
    """average ← d_t average + (1 - d_t) θ,  d_t = min(decay, (1 + t)/(10 + t)), while θ takes known values."""
    start, path = np.array([2.0, -1.0]), np.sin(np.arange(steps) / 7)[:, None] * [1.0, 3.0] + [0.0, 1.0]  # (2,), (T, 2)
    warm, findings = lambda t: min(decay, (1 + t) / (10 + t)), []
    for updates in (3, steps):  # in the warm-up, and long after it
        p = parameter(start.copy())
        flat = FlatParameters([p])
        average = cls(flat, decay)
        for value in path[:updates]:
            flat.data[...] = value
            flat.written()
            average.update()
        with average.applied():
            found = float(p.data.sum())

        def after(decay_at: Any, a: np.ndarray = start, path: np.ndarray = path[:updates]) -> float:
            for t, value in enumerate(path):
                a = decay_at(t) * a + (1 - decay_at(t)) * value
            return float(a.sum())

        suspects = (
            (float(path[updates - 1].sum()), "it is the parameter itself"),
            (float(start.sum()), "the average never moves"),
            (after(lambda t: 1 - warm(t)), "decay and 1 - decay are exchanged"),
            (after(lambda t: decay), "there is no warm-up"),
            (after(warm, 0 * start), "the average starts at 0"),
            (after(lambda t: (1 + t) / (10 + t)), "the warm-up never ends: min(decay, ...) is left out"),
            (after(lambda t: min(decay, (2 + t) / (11 + t))), "t begins at 1, where it must be 0"),
        )
        findings.append(Finding(f"average after {updates} updates, summed", found, after(warm), 1e-9, suspects))
        own = float(np.abs(p.data - path[updates - 1]).max())
        findings.append(Finding(f"largest change of the parameters put back after {updates} updates", own, 0, 0))
    return findings


def _sigma(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def _dot(a: Gradients, b: Gradients) -> float:
    return sum(float((u.astype(np.float64) * v).sum()) for u, v in zip(a, b, strict=True))


# ---- the rows of the table


TRUTHS = (
    Truth(
        "train-step",
        "a training step moves every parameter by minus the rate times its gradient, and no further",
        "gradient descent: p ← p - η ∂loss/∂p",
        ("train_step", "optimizers", "parameters", "example|example_images|example_8x8"),
        train_step,
        without=("generator_loss",),
        mistakes="another loss than `loss` gives, a step that is not taken, or a layer that the optimiser does not have",
    ),
    Truth(
        "train-game",
        "each player of the Dirac-GAN goes down its own loss, by the rate times its slope",
        "Goodfellow et al. 2014, arXiv 1406.2661, algorithm 1; Mescheder et al. 2018, arXiv 1801.04406",
        ("train_step", "generator_loss"),
        train_game,
        made_of=("generator", "discriminator", "data_shape", "config"),
        mistakes="a player that trains on the other's loss, samples cut off from the generator, or gradients that pile up",
    ),
    Truth(
        "ema",
        "an average of parameters with warm-up follows its recursion, and gives the parameters back",
        "average ← d_t average + (1 - d_t) θ, d_t = min(decay, (1 + t)/(10 + t))",
        ("update", "applied"),
        ema,
        made_of=("flat", "decay"),
        mistakes="the decay, its warm-up, or parameters that are not restored bit for bit",
    ),
)
