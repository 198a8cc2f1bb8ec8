"""Truths of generative adversarial networks, in cases so small that the game can be solved. Start at `optimal_d`.

Each check of a model takes a class made like `minigen.models.GAN`: cls(generator, discriminator, data_shape, config), with
`discriminator_loss(x, fake, rng)`, `generate(n, rng)` and `generator_loss(n, rng)`; the networks are given. `spectral_norm`
takes a class made like `minigen.nn.SpectralNorm`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import expit, log_expit, ndtr, ndtri

from ..autograd import Tensor, grad, ops
from ..models.gan import GANConfig
from ..nn import Module, parameter
from ..random import Generator
from .truth import Finding, Truth

N = 20_000  # points that stand for a normal distribution
ROUND_OFF = 1e-9
UNDER_THE_ROOT = 1e-12  # what may stand beside a sum of squares under a root, so that a norm has a slope at 0 too


# ---- truth optimal-d


def optimal_d(cls: Any) -> list[Finding]:
    """Data N(0, 1), samples N(m, 1), and the best discriminator: what each game is worth.

        minimax, non-saturating    V(D*, G) = 2 JSD - log 4, with D* = log p - log q = ½ m² - m x   (Goodfellow 2014, th. 1)
        hinge                      2 (1 - TV) = 4 Φ(-m/2), with D* = sign(p - q)
        wgan-gp                    minus the Wasserstein distance m, with D* = -x, whose slope costs nothing

    At D* a loss has no slope; and the generator's slope in m leads to the data. Expectations are means over the quantiles of
    the normal distribution, which is as good as quadrature.
    """
    findings = []
    for m in (0.0, 1.0, 2.0, 4.0):
        log_ratio = (0.5 * m * m, -m)  # a + b x
        for loss in ("minimax", "non-saturating"):
            gan = _line(cls, loss, m, log_ratio)
            value, what = value_of_the_game(m), f"{loss}: V(D*, G) for m = {m:g}"
            wrong = ((-value, "the discriminator's loss has the wrong sign"), (value / 2, "its two halves are averaged"))
            findings.append(Finding(what, -_loss(gan), value, 1e-4, wrong))
            for name, g in zip("ab", _slope(gan), strict=True):
                findings.append(Finding(f"{loss}: slope of V in {name} at D* = a + b x, m = {m:g}", g, 0, 1e-3))
        findings.append(Finding(f"hinge: loss of D* for m = {m:g}", _loss(_step(cls, m)), 4 * float(ndtr(-m / 2)), 1e-3))
        findings.append(Finding(f"wgan-gp: loss of D* for m = {m:g}", _loss(_line(cls, "wgan-gp", m, (0, -1))), -m, 1e-6))
        said = expit(log_ratio[0] + log_ratio[1] * (_quantiles() + m))  # (N, 1)   σ(D*) of the samples
        slopes = {"minimax": m * said.mean(), "non-saturating": m * (1 - said).mean(), "hinge": m, "wgan-gp": m}
        for loss, slope in slopes.items():
            gan = _line(cls, loss, m, log_ratio)
            g = grad(gan.generator_loss(N, Quantiles()), gan.generator.shift)
            suspects = (
                *((other, f"this is the generator's loss of the {name} game") for name, other in slopes.items()),
                (-slope, "the generator's loss has the wrong sign"),
            )
            what = f"{loss}: slope of the generator's loss in m = {m:g}"
            findings.append(Finding(what, g.item(), slope, 1e-9 + 1e-6 * m, suspects))
    return findings


def value_of_the_game(m: float) -> float:
    """V(D*, G) between N(0, 1) and N(m, 1), by quadrature: E_p[log p/(p+q)] + E_q[log q/(p+q)]"""
    x = np.linspace(-12, 12 + m, 20_001)
    p, q = (np.exp(-0.5 * (x - mean) ** 2) / math.sqrt(2 * math.pi) for mean in (0, m))
    d = 0.5 * m * m - m * x
    return float((p * log_expit(d) + q * log_expit(-d)).sum() * (x[1] - x[0]))


class Quantiles:
    """A generator whose normal numbers are the quantiles of the normal distribution: (n, 1) each time the same."""

    def normal(self, shape: tuple[int, ...], mean: float = 0.0, std: float = 1.0, dtype: Any = np.float32) -> np.ndarray:
        """The quantiles of N(mean, std²) in the middle of N equal parts, from low to high along the first axis."""
        return np.broadcast_to(mean + std * _quantiles(shape[0]), shape)

    def uniform(self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0, dtype: Any = np.float32) -> np.ndarray:
        """The quantiles of U[low, high) in the middle of N equal parts, from low to high along the first axis."""
        return np.broadcast_to(low + (high - low) * ndtr(_quantiles(shape[0])).reshape(-1, *[1] * (len(shape) - 1)), shape)


def _quantiles(n: int = N) -> np.ndarray:
    """(n, 1) float64"""
    return ndtri((np.arange(n) + 0.5) / n)[:, None]


class Shift(Module):
    """G(z) = z + m.     (N, 1) -> (N, 1)"""

    def __init__(self, m: float):
        self.shift = parameter(np.array(m))

    def forward(self, z: Any) -> Tensor:
        return z + self.shift


class Line(Module):
    """D(x) = a + b x.     (N, 1) -> (N,)"""

    def __init__(self, a: float, b: float):
        self.a, self.b = parameter(np.array(float(a))), parameter(np.array(float(b)))

    def forward(self, x: Any) -> Tensor:
        return self.a + self.b * x[:, 0]


def _line(cls: Any, loss: str, m: float, ab: tuple[float, float]) -> Any:
    return cls(Shift(m), Line(*ab), (1,), GANConfig(loss=loss, norm="none", latent=1))


def _step(cls: Any, m: float) -> Any:
    """D* of the hinge: 1 where p > q, and -1 elsewhere."""
    sign = lambda x: Tensor(np.where(x[:, 0] < m / 2, 1.0, -1.0))
    return cls(Shift(m), sign, (1,), GANConfig(loss="hinge", norm="none", latent=1))


def _loss(gan: Any) -> float:
    x = _quantiles()
    return float(gan.discriminator_loss(x, x + gan.generator.shift.item(), Quantiles()).total.item())


def _slope(gan: Any) -> list[float]:
    x, d = _quantiles(), gan.discriminator
    loss = gan.discriminator_loss(x, x + gan.generator.shift.item(), Quantiles()).total
    return [g.item() for g in grad(loss, [d.a, d.b])]


# ---- truth dirac-gan


def dirac_gan(cls: Any, h: float = 0.1) -> list[Finding]:
    """The Dirac-GAN   (Mescheder 2018, https://arxiv.org/abs/1801.04406): data 0, samples θ, D(x) = ψ x.

    Both players take a step of length h at once. Near the equilibrium (0, 0) that is a linear map I + h J, with eigenvalues
    λ = -γ/2 ± √(γ²/4 - s²) of J; s = f'(0) is the slope of the game, ½ for a logistic one, 1 for the hinge. Without a penalty
    |1 + hλ| > 1: the players circle, further and further out. R1 draws them in. J comes from the model's own losses, by
    differentiating their gradients, which for R1 is the third time.
    """
    return [
        Finding(
            f"{loss}, gamma = {gamma:g}: modulus of a step's eigenvalues",
            _modulus(cls, loss, gamma, h),
            dirac_modulus(slope, gamma, h),
            ROUND_OFF,
            (
                (dirac_modulus(slope, 2 * gamma, h), "R1 has no ½"),
                (dirac_modulus(slope, gamma / 2, h), "R1 is half of what it must be, ½ γ |∇D|²"),
                (dirac_modulus(slope, 0, h), "R1 does nothing: no gradient comes back through the slope of D"),
                (dirac_modulus(2 * slope, gamma, h), "both losses count twice"),
            ),
        )
        for loss, slope in (("minimax", 0.5), ("non-saturating", 0.5), ("hinge", 1.0))
        for gamma in (0.0, 0.5, 1.0)
    ]


def dirac_modulus(slope: float, gamma: float, h: float) -> float:
    """The larger |1 + hλ|, λ = -γ/2 ± √(γ²/4 - s²)   (Mescheder 2018, lemma 2.3, th. 4.1)"""
    root = np.sqrt(complex(gamma**2 / 4 - slope**2))
    return float(max(abs(1 + h * (-gamma / 2 + sign * root)) for sign in (1, -1)))


class Point(Module):
    """G(z) = θ, whatever z.     (N, 1) -> (N, 1)"""

    def __init__(self) -> None:
        self.theta = parameter(np.array(0.0))

    def forward(self, z: Any) -> Tensor:
        return self.theta + np.zeros((len(z), 1))


class Slope(Module):
    """D(x) = ψ x.     (N, 1) -> (N,)"""

    def __init__(self) -> None:
        self.psi = parameter(np.array(0.0))

    def forward(self, x: Any) -> Tensor:
        return self.psi * x[:, 0]


def _modulus(cls: Any, loss: str, gamma: float, h: float) -> float:
    gan = cls(Point(), Slope(), (1,), GANConfig(loss=loss, norm="none", latent=1, r1=gamma))
    rng, places = Generator(0), [gan.generator.theta, gan.discriminator.psi]
    judged = gan.discriminator_loss(np.zeros((3, 1)), gan.generate(3, rng), rng).total
    losses = [gan.generator_loss(3, rng), judged]
    jacobian = np.zeros((2, 2))
    for i, (loss_, place) in enumerate(zip(losses, places, strict=True)):
        g = grad(loss_, place, create_graph=True)
        for j, second in enumerate(grad(g, places, allow_unused=True)):
            jacobian[i, j] = 0.0 if second is None else second.item()
    return float(np.abs(np.linalg.eigvals(np.eye(2) - h * jacobian)).max())


# ---- truth gradient-penalty


class Quadratic(Module):
    """D(x) = ½ xᵀ A x + bᵀ x, A symmetric: its slope is A x + b.     (N, d) -> (N,)"""

    def __init__(self, a: np.ndarray, b: np.ndarray):
        self.a, self.b = parameter(a), parameter(b)

    def forward(self, x: Any) -> Tensor:
        return (x * (0.5 * ops.matmul(x, self.a) + self.b)).sum(axis=1)


def gradient_penalty(cls: Any, d: int = 3, n: int = 40, seed: int = 0) -> list[Finding]:
    """The penalties on the slope g = A x + b of a quadratic D, and what their own gradients are, in closed form.

        λ E[(‖g‖ - 1)²]:   in b  λ E[w g],   in A  ½ λ E[w (g xᵀ + x gᵀ)],   w = 2 (‖g‖ - 1)/‖g‖        (Gulrajani 2017, eq. 3)
        ½ γ E[‖g‖²]:       the same with γ in the place of λ, and w = 1                             (Mescheder 2018, eq. 9)

    Real and generated samples are the same points here, so that the rest of the loss, and its gradient, are 0, and points
    between them are those points too. That they do lie between, on a line, is a last finding.

    A norm has no slope at 0, so an implementation takes sqrt(‖g‖² + ε). For an ε up to UNDER_THE_ROOT this moves the norm by
    at most ε/(2 ‖g‖) and √ε, and w g by at most ε/‖g‖² and 2: small slopes are allowed as much more.
    """
    rng = Generator(seed)
    x, a, b = (rng.normal(shape, std=0.5, dtype=np.float64) for shape in ((n, d), (d, d), (d,)))  # slopes around 1
    a = a + a.T
    g = x @ a + b  # (n, d)
    norm = np.linalg.norm(g, axis=1, keepdims=True)
    outer = g[:, :, None] * x[:, None] + x[:, :, None] * g[:, None]  # (n, d, d)
    moved_norm = np.minimum(UNDER_THE_ROOT / (2 * norm), math.sqrt(UNDER_THE_ROOT))  # (n, 1)
    moved_wg = np.minimum(UNDER_THE_ROOT / norm**2, 2)
    moved = {
        "penalty": (moved_norm * (2 * norm + moved_norm + 2)).mean(),
        "A": (0.5 * (moved_wg / norm)[:, :, None] * abs(outer)).mean(axis=0).max(),
        "b": moved_wg.mean(),
    }
    findings = []
    for name, gp, r1, value, w in (
        ("gp", 7.0, 0.0, ((norm - 1) ** 2).mean(), 2 * (norm - 1) / norm),
        ("r1", 0.0, 3.0, 0.5 * (norm**2).mean(), np.ones_like(norm)),
    ):
        weight = gp + r1
        gan = cls(Shift(0.0), Quadratic(a, b), (d,), GANConfig(loss="wgan-gp", norm="none", latent=1, gp=gp, r1=r1))
        loss = gan.discriminator_loss(x, x, rng).total
        in_a, in_b = grad(loss, [gan.discriminator.a, gan.discriminator.b])
        expected_a = 0.5 * weight * (w[:, :, None] * outer).mean(axis=0)
        errors = {
            "A": abs(0.5 * (in_a.data + in_a.data.T) - expected_a).max(),
            "b": abs(in_b.data - weight * (w * g).mean(axis=0)).max(),
        }
        allowed = {k: 1e-8 + gp * v for k, v in moved.items()}
        suspects = (
            (0.0, "there is no penalty"),
            (weight * value * n, "the penalty is summed over the batch, where it must be averaged"),
            (2 * weight * value, "the penalty counts twice: R1 has a ½, the gradient penalty a 1"),
            (weight * value / 2, "the penalty is half of what it must be"),
            (weight * float(((norm**2 - 1) ** 2).mean()), "the norm has no root: the square of the slope is held near 1"),
            (weight * float((np.maximum(norm - 1, 0) ** 2).mean()), "slopes below 1 are not punished"),
            (weight * 0.5 * float(norm.mean()), "the norm is not squared"),
        )
        findings.append(Finding(f"{name}: the penalty", loss.item(), weight * value, allowed["penalty"], suspects))
        findings += [Finding(f"{name}: largest error of its gradient in {k}", v, 0, allowed[k]) for k, v in errors.items()]
    return [*findings, *_where(cls)]


def _where(cls: Any, n: int = 20_000) -> list[Finding]:
    """D = ½ ‖x‖², whose slope is x itself: R1 at the real (3, 0), not at the generated (0, 4); gp at (3u, 4(1 - u))."""

    def penalty(gp: float, r1: float) -> float:
        gan = cls(Shift(0.0), Quadratic(np.eye(2), np.zeros(2)), (2,), GANConfig(loss="wgan-gp", norm="none", gp=gp, r1=r1))
        real, fake = (np.broadcast_to(point, (n, 2)) for point in ((3.0, 0.0), (0.0, 4.0)))
        return float(gan.discriminator_loss(real, fake, Generator(0)).total.item()) - (8.0 - 4.5)

    u = (np.arange(100_000) + 0.5) / 100_000
    squares = (np.hypot(3 * u, 4 * (1 - u)) - 1) ** 2
    return [
        Finding(
            "r1: at real samples",
            penalty(0.0, 1.0),
            4.5,
            ROUND_OFF,
            ((8.0, "it is taken at generated samples"), (12.5, "it is taken at generated samples too")),
        ),
        Finding(
            "gp: between two points",
            penalty(1.0, 0.0),
            squares.mean(),
            4 * squares.std() / math.sqrt(n),
            ((4.0, "it is taken at real samples"), (9.0, "it is taken at generated samples"), (2.25, "always half-way")),
        ),
    ]


# ---- truth spectral-norm


def spectral_norm(cls: Any) -> list[Finding]:
    """Power iteration finds the largest singular value; and the gradient of W/σ(W) is that of the exact one.

    For weights with known singular values 3, 2, 1, ..., of a linear layer and of a convolution as a matrix (all axes but the
    last, last). With f = <C, W/σ>, v uᵀ the pair of σ:  ∂f/∂W = (C - <C, W/σ> v uᵀ)/σ   (Miyato 2018, sec. 2.3).
    """
    findings, rng = [], Generator(0)
    for what, shape in (("linear", (7, 5)), ("wide linear", (3, 8)), ("convolution", (3, 2, 4, 6))):
        rows, columns = math.prod(shape[:-1]), shape[-1]
        k = min(rows, columns)
        left, _, right = np.linalg.svd(rng.normal((rows, columns), dtype=np.float64), full_matrices=False)
        singular = np.concatenate([[3.0, 2.0], np.linspace(1, 0.1, k - 2)])
        weight = parameter(((left * singular) @ right).reshape(shape))
        norm = cls(weight, rng=rng).astype(np.float64)
        for _ in range(100):
            normed = norm(weight)
        c = rng.normal(shape, dtype=np.float64)
        pair = np.outer(left[:, 0], right[0]).reshape(shape)
        expected = (c - (c * weight.data).sum() / 3 * pair) / 3
        largest = np.linalg.svd(normed.data.reshape(rows, columns))[1][0]
        error = abs(grad((normed * c).sum(), weight).data - expected).max()
        findings.append(Finding(f"{what}: largest singular value of W/σ", float(largest), 1, ROUND_OFF))
        findings.append(Finding(f"{what}: largest error of the gradient", float(error), 0, ROUND_OFF))
    return findings


GAN = ("generator", "discriminator", "data_shape", "config")  # how the constructor of a class begins
GAMES = ("discriminator_loss", "generator_loss", "generate")

TRUTHS = (
    Truth(
        "optimal-d",
        "against the best discriminator a game is worth 2 JSD - log 4, 2 (1 - TV), or minus a Wasserstein distance",
        "Goodfellow et al. 2014, arXiv 1406.2661, theorem 1",
        GAMES,
        optimal_d,
        made_of=GAN,
        mistakes="the sign of a loss, real and generated samples exchanged, or the generator's loss for another game",
    ),
    Truth(
        "dirac-gan",
        "near the equilibrium simultaneous steps circle outwards without R1, and come in with it",
        "Mescheder et al. 2018, arXiv 1801.04406, lemma 2.3 and theorem 4.1",
        GAMES,
        dirac_gan,
        made_of=GAN,
        mistakes="the ½ of R1, a penalty on generated samples, or one through which no gradient comes back",
    ),
    Truth(
        "gradient-penalty",
        "for a quadratic discriminator both penalties, and their own gradients, have closed forms",
        "Gulrajani et al. 2017, arXiv 1704.00028, eq. 3",
        GAMES,
        gradient_penalty,
        made_of=GAN,
        mistakes="a slope that is summed or averaged over the batch, its norm without the root, or no second gradient",
    ),
    Truth(
        "spectral-norm",
        "power iteration finds the largest singular value, and the gradient of W/σ(W) is that of the exact one",
        "Miyato et al. 2018, arXiv 1802.05957, section 2.3",
        ("forward", "astype"),
        spectral_norm,
        made_of=("weight", "rng"),
        mistakes="too few steps, u and v that are not kept, or a gradient that does not pass through σ",
    ),
)
