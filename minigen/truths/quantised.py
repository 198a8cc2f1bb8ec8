"""Truths of discrete codes   (van den Oord 2017, https://arxiv.org/abs/1711.00937), in cases small enough to list: see `vq`.

`vq` takes a class made like `minigen.models.Codebook`: cls(size, dimension, decay), with `forward(z)`, `update(z, k, rng)`,
`perplexity(k)`, and buffers `vectors` (K, D), `counts` (K,), `sums` (K, D). `vq_bound` takes one like `minigen.models.VQVAE`.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ..autograd import Tensor, grad, no_grad, ops
from ..models.vae import Bernoulli
from ..models.vqvae import Codebook, VQVAEConfig
from ..nn import Module, parameter
from ..random import Generator
from .autoregressive import all_images, pearson
from .truth import Finding, Truth, array

ROUND_OFF = 1e-9
CENTRES = np.array([[3.0, 3.0], [-3.0, 3.0], [-3.0, -3.0], [3.0, -3.0]])


def vq(cls: Any, decay: float = 0.9) -> list[Finding]:
    """The nearest vector comes out, its gradient goes straight through, vectors follow the means, and perplexity is e^H.

    One update moves a vector by the share (1 - γ) n/(γ N + (1 - γ) n) of its way to the mean of the n that chose it; many
    bring it there.
    """
    rng, members = Generator(0), 5
    z = np.repeat(CENTRES, members, axis=0) + 0.3 * rng.normal((4 * members, 2), dtype=np.float64)
    means = z.reshape(4, members, 2).mean(axis=1)
    start, own = CENTRES + 0.5, np.repeat(np.arange(4), members)
    book = _book(cls, start, decay)
    at, c = Tensor(z, requires_grad=True), rng.normal(z.shape, dtype=np.float64)
    found, k = book(at)
    (gradient,) = grad((found * c).sum(), [at], allow_unused=True) if found.requires_grad else (None,)
    through = 0.0 if gradient is None else float((gradient.data * c).sum() / (c * c).sum())
    findings = [
        Finding("codes that are not those of the nearest vector", float((np.asarray(k) != own).sum()), 0, 0),
        Finding("largest difference from the nearest vector", float(np.abs(array(found) - start[own]).max()), 0, ROUND_OFF),
        Finding(
            "share of the gradient of z_q that z_e gets",
            through,
            1,
            ROUND_OFF,
            ((0.0, "the gradient does not go straight through: z_q = z + sg[e - z]"), (2.0, "it comes through twice")),
        ),
    ]
    book.update(z, own, rng)
    share = lambda new, old: new * members / (old + new * members)
    moved = float(((book.vectors.data - start) * (means - start)).sum() / ((means - start) ** 2).sum())
    suspects = (
        (0.0, "the vectors do not move"),
        (1.0, "the vectors jump to the means of the batch"),
        (1 - decay, "the vectors are averaged, where their sums and counts must be"),
        (share(decay, 1 - decay), "γ and 1 - γ are exchanged"),
        (share(1.0, 1.0), "sums and counts only grow: nothing is forgotten"),
    )
    findings.append(Finding("share of the way to the mean in one update", moved, share(1 - decay, decay), ROUND_OFF, suspects))
    for _ in range(300):
        book.update(z, own, rng)
    far = float(np.abs(book.vectors.data - means).max())
    findings.append(Finding("largest distance of a vector from the mean of its cluster, after many updates", far, 0, 1e-6))
    for what, used, perplexity in (("all codes used alike", own, 4.0), ("one code used", 0 * own, 1.0)):
        entropy = np.log(perplexity)
        wrong = ((entropy, "it is the entropy, not its exponential"), (np.exp2(entropy), "2^H, for H in nats"))
        findings.append(Finding(f"perplexity with {what}", float(array(book.perplexity(used))), perplexity, ROUND_OFF, wrong))
    return findings


def _book(cls: Any, vectors: np.ndarray, decay: float = 0.9) -> Any:
    """A codebook with these vectors, each of which has been chosen once."""
    book = cls(*vectors.shape, decay).astype(np.float64)
    book.vectors.data[...], book.sums.data[...], book.counts.data[...] = vectors, vectors, 1
    for name in ("vectors", "sums", "counts"):
        getattr(book, name).mark_written()
    return book


# ---- truth vq-bound


class Encoder(Module):
    """z = x A in each half of an image.     (N, 2, 2, 1) -> (N, 1, 2, 2)"""

    def __init__(self, a: np.ndarray):
        self.a = parameter(a)

    def forward(self, x: Any) -> Tensor:
        return ops.matmul(Tensor(x).reshape(len(x), 1, 2, 2), self.a)


class Decoder(Module):
    """Logits z B.     (N, 1, 2, 2) -> (N, 2, 2, 1)"""

    def __init__(self, b: np.ndarray):
        self.b = parameter(b)

    def forward(self, z: Any) -> Tensor:
        return ops.matmul(z, self.b).reshape(len(z), 2, 2, 1)


class Prior(Module):
    """Logits of the first code, and of the second given the first.     (N, 1, 2) -> (N, 1, 2, K)"""

    def __init__(self, first: np.ndarray, second: np.ndarray):
        self.first, self.second = parameter(first), parameter(second)  # (K,), (K, K)

    def forward(self, k: np.ndarray) -> Tensor:
        n = len(k)
        first = ops.broadcast_to(self.first, (n, 1, len(self.first)))
        return ops.stack([first, ops.embedding(k[:, :, 0], self.second)], axis=2)


def vq_bound(cls: Any, codes: int = 3, beta: float = 0.25) -> list[Finding]:
    """Images of 2 x 2 binary pixels, with codes of 2 numbers out of 3: p(x) is a sum over 9 codes, the bound one term of it.

    And the gradient for the encoder: 2 β (z - e) of the commitment, and that of -log p(x|z_q), straight through.
    """
    rng = np.random.default_rng(0)
    a, b, e = rng.normal(size=(2, 2)), 2 * rng.normal(size=(2, 2)), rng.normal(size=(codes, 2))
    first, second = rng.normal(size=codes), rng.normal(size=(codes, codes))
    parts = Encoder(a), _book(Codebook, e), Decoder(b), Prior(first, second), Bernoulli()
    model = cls(*parts, (2, 2, 1), (1, 2), VQVAEConfig(codes=codes, dimension=2, commitment=beta)).astype(np.float64)
    model.codebook.started.data[...] = 1
    model.codebook.started.mark_written()
    model.eval()

    x = all_images((2, 2, 1))  # (16, 2, 2, 1)
    grids = np.array(list(itertools.product(range(codes), repeat=2))).reshape(-1, 1, 2)  # (9, 1, 2)
    z = x.reshape(-1, 2, 2) @ a  # (16, 2, D)
    k = ((z[:, :, None] - e) ** 2).sum(axis=-1).argmin(axis=-1)  # (16, 2)
    log_p1, log_p2 = (v - np.logaddexp.reduce(v, axis=-1, keepdims=True) for v in (first, second))
    log_pk = log_p1[grids[:, 0, 0]] + log_p2[grids[:, 0, 0], grids[:, 0, 1]]  # (9,)
    logits = (e[grids[:, 0]] @ b).reshape(-1, 1, 4)  # (9, 1, 4)
    each = -np.logaddexp(0, np.where(x.reshape(16, 4) > 0, -logits, logits))  # (9, 16, 4)
    log_px, chosen = each.sum(axis=-1), (np.arange(16), k[:, 0] * codes + k[:, 1])
    right = (log_px.T + log_pk)[chosen]  # (16,)
    cost = -log_pk[chosen[1]].mean()
    with no_grad():
        bound = array(model.elbo(x, Generator(0))[0])
        own = [array(model.likelihood.log_prob(x, model.decode(np.broadcast_to(grid, (16, 1, 2))))) for grid in grids]
        joint = np.array(own) + array(model.log_prior(grids))[:, None]  # (9, 16)
        drawn = np.asarray(array(model.sample(20_000, Generator(1))), np.float64).reshape(-1, 1, 4)
    suspects = (
        (right.mean() + cost, "the prior is left out: the codes cost nothing"),
        (right.mean() + cost - 2 * np.log(codes), "every code costs log K: the prior is taken for uniform"),
        (right.mean() + 2 * cost, "log p(k) has the wrong sign"),
        (right.mean() + cost - cost / 2, "log p(k) is averaged over the grid, where it must be summed"),
        (0.75 * -cost + 0.25 * right.mean(), "log p(x|z_q) is averaged over the pixels, where it must be summed"),
    )
    means = 1 / (1 + np.exp(-logits[:, 0]))  # (9, 4)
    counts = np.bincount(((drawn - means) ** 2).sum(axis=-1).argmin(axis=1), minlength=len(means))
    return [
        Finding("mean bound of all images, nats", float(bound.mean()), float(right.mean()), ROUND_OFF, suspects),
        Finding("largest error of the bound of an image, nats", float(np.abs(bound - right).max()), 0, ROUND_OFF),
        Finding("Σ p(x|k) p(k) over all images and codes", float(np.exp(joint).sum()), 1, ROUND_OFF),
        *_encoder_gradient(model, x, z, e[k], beta, (x.reshape(16, 4) - means[chosen[1]]).reshape(16, 2, 2) @ b.T),
        Finding("(χ² - df)/√(2 df) of the codes of samples", pearson(counts, 20_000 * np.exp(log_pk)), 0, 4),
    ]


def _encoder_gradient(
    model: Any, x: np.ndarray, z: np.ndarray, e: np.ndarray, beta: float, ascent: np.ndarray
) -> list[Finding]:
    """What the loss gives the encoder.     z, e: (16, 2, D).     ascent: of log p(x|z_q) in z_q, likewise."""
    (gradient,) = grad(model.loss(x, Generator(0)).total, [model.encoder.a], allow_unused=True)
    found = np.zeros((2, 2)) if gradient is None else gradient.data
    through = lambda slope: np.einsum("nip,niq->pq", x.reshape(16, 2, 2), slope) / 16  # (2, D)
    pull, log_px = through(2 * (z - e)), through(-ascent)
    right = beta * pull + log_px
    along = lambda g: float((g * right).sum() / (right * right).sum())
    suspects = (
        (along(log_px), "there is no commitment: nothing holds the encoder to its codes"),
        (along(beta * pull), "no gradient comes through the choice: only the commitment moves the encoder"),
        (along(pull + log_px), "the commitment has no weight beta"),
        (along(log_px - beta * pull), "the commitment pushes the encoder away: a wrong sign"),
        (along(log_px + beta / 4 * pull), "the commitment is averaged over the grid and its vectors, where it must be summed"),
        (0.0, "no gradient reaches the encoder"),
    )
    error = float(np.abs(found - right).max())
    return [
        Finding("gradient of the encoder, along the right one", along(found), 1, ROUND_OFF, suspects),
        Finding("largest error of that gradient", error, 0, ROUND_OFF),
    ]


# ---- the rows of the table


TRUTHS = (
    Truth(
        "vq",
        "the gradient of a quantised vector goes straight through, a codebook finds the means, perplexity is e^H",
        "van den Oord et al. 2017, arXiv 1711.00937, sec. 3.2 and eqs. 6-8",
        ("forward", "update", "perplexity"),
        vq,
        made_of=("size", "dimension", "decay"),
        mistakes="the nearest vector by another distance, a gradient that ends at the choice, or averages of vectors",
    ),
    Truth(
        "vq-bound",
        "the bound is the term of log Σ_k p(x|k) p(k) that the encoder chooses, and codes are drawn from p(k)",
        "van den Oord et al. 2017, arXiv 1711.00937, sec. 3.1 and eq. 3",
        ("elbo", "decode", "log_prior", "loss", "sample"),
        vq_bound,
        made_of=("encoder", "codebook", "decoder", "prior", "likelihood", "data_shape", "grid", "config"),
        mistakes="the prior or the commitment, a mean for a sum, or codes drawn in another order than the prior's",
    ),
)
