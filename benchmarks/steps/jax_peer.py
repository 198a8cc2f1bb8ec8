"""The layers of workloads.py on JAX: the whole step, with its update, is one compiled function. Start at `Library.step`.

The definitions in workloads.py change parameters in place. That is harmless while a function is traced: `step` hands it a
dictionary of the traced values, and returns what the dictionary holds afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .given import Given
from .workload import Workload

ACTIVATIONS: dict[str | None, Callable] = {
    None: lambda x: x,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "leaky_relu": partial(jax.nn.leaky_relu, negative_slope=0.2),
}
IMAGES = ("NCHW", "OIHW", "NCHW")


class Library:
    """One workload's parameters and optimisers, and the layers that its definition names."""

    xp = jnp

    def __init__(self, workload: Workload, weights: dict, threads: int, variant: str):
        self.workload, self.version = workload, jax.__version__
        self.dtype = next(iter(weights.values())).dtype
        if self.dtype == np.float64:
            jax.config.update("jax_enable_x64", True)
        self.p = {name: jnp.asarray(a) for name, a in weights.items()}
        self.moments = {name: (jnp.zeros_like(a), jnp.zeros_like(a)) for name, a in self.p.items()}
        self.count = jnp.zeros((), jnp.int32)
        self.running: dict[str, Any] = {}
        self.compiled = jax.jit(self._pure)

    def image(self, x: Any) -> Any:
        return jnp.asarray(x)

    def constants(self, a: Any) -> Any:
        return jnp.asarray(a, self.dtype)

    def noise(self, seed: int) -> Noise:
        return Noise(jax.random.key(seed))

    def step(self, data: dict, noise: Any) -> float:
        if isinstance(noise, Given):  # it draws with NumPy at every step, so it cannot be traced once for all
            self.count = self.count + 1
            return float(self.workload.step(self, self.p, data, noise))
        noise.key, key = jax.random.split(noise.key)
        value, self.p, self.moments, self.count = self.compiled(self.p, self.moments, self.count, data, key)
        return float(value)

    def _pure(self, p: dict, moments: dict, count: Any, data: dict, key: Any) -> tuple:
        p, before = dict(p), (self.moments, self.count)
        self.moments, self.count = dict(moments), count + 1
        value = self.workload.step(self, p, data, Noise(key))
        after, (self.moments, self.count) = (self.moments, self.count), before
        return value, p, *after

    # ---- training

    def update(self, which: str, loss: Callable[[dict], Any], p: dict) -> Any:
        prefix = self.workload.trained if which == "adam" else which
        trained = {name: a for name, a in p.items() if name.startswith(prefix)}
        value, g = jax.value_and_grad(lambda q: loss({**p, **q}))(trained)
        self.adam(p, g)
        return value

    def adam(self, p: dict, g: dict) -> None:
        (b1, b2), lr = self.workload.betas, self.workload.lr
        if self.workload.clip is not None:
            norm = jnp.sqrt(sum(jnp.sum(a * a) for a in g.values()))
            g = {name: a * jnp.minimum(1.0, self.workload.clip / (norm + 1e-6)) for name, a in g.items()}
        for name, a in g.items():
            m, v = self.moments[name]
            m, v = b1 * m + (1 - b1) * a, b2 * v + (1 - b2) * a * a
            self.moments[name] = m, v
            p[name] = p[name] - lr * (m / (1 - b1**self.count)) / (jnp.sqrt(v / (1 - b2**self.count)) + 1e-8)

    def pullback(self, prefix: str, function: Callable[[dict], Any], p: dict) -> tuple[Any, Any]:
        chosen = {name: a for name, a in p.items() if name.startswith(prefix)}
        return jax.vjp(lambda q: function({**p, **q}), chosen)

    def update_from(self, prefix: str, back: Any, g: Any, p: dict) -> None:
        self.adam(p, back(g)[0])

    def value_and_input_grad(self, function: Callable[[Any], Any], x: Any) -> tuple[Any, Any]:
        return jax.value_and_grad(function)(x)

    def input_grad(self, function: Callable[[Any], Any], x: Any, create_graph: bool = True) -> Any:
        return jax.grad(function)(x)

    def constant(self, function: Callable[[], Any]) -> Any:
        return jax.lax.stop_gradient(function())

    def run(self, function: Callable, *arrays: Any) -> Any:
        return function(*arrays)

    def sample_pixels(self, logits: Callable, p: dict, u: Any, count: int) -> Any:
        """Binary images (N, 1, 28, 28), the first `count` pixels of each drawn by the definition, the others zero."""

        def draw(i: Any, x: Any) -> Any:
            at = (slice(None), slice(None), i // x.shape[3], i % x.shape[3])
            return x.at[at].set((u[at] < jax.nn.sigmoid(logits(x)[at])).astype(x.dtype))

        return jax.lax.fori_loop(0, count, draw, jnp.zeros_like(u))

    def frozen(self, p: dict) -> dict:
        return p

    # ---- layers

    def linear(self, x: Any, p: dict, name: str, activation: str | None = None) -> Any:
        return ACTIVATIONS[activation](x @ p[f"{name}.w"].T + p[f"{name}.b"])

    def conv(self, x: Any, p: dict, name: str, stride: int, padding: int, activation: str | None = None) -> Any:
        y = jax.lax.conv_general_dilated(x, p[f"{name}.w"], (stride,) * 2, [(padding,) * 2] * 2, dimension_numbers=IMAGES)
        return self.finish(y, p.get(f"{name}.b"), activation)

    def transposed(self, x: Any, p: dict, name: str, stride: int, padding: int, activation: str | None = None) -> Any:
        w = p[f"{name}.t"]
        around = [(w.shape[2] - 1 - padding,) * 2] * 2
        w = jnp.flip(w, (2, 3)).transpose(1, 0, 2, 3)
        y = jax.lax.conv_general_dilated(x, w, (1, 1), around, lhs_dilation=(stride,) * 2, dimension_numbers=IMAGES)
        return self.finish(y, p.get(f"{name}.b"), activation)

    def finish(self, x: Any, bias: Any, activation: str | None) -> Any:
        return ACTIVATIONS[activation](x if bias is None else x + bias[:, None, None])

    def masked(self, x: Any, p: dict, name: str, sees_itself: bool) -> Any:
        w = p[f"{name}.w"]
        half = w.shape[2] // 2
        mask = np.ones(w.shape[2:], self.dtype)
        mask[half, half + sees_itself :] = 0
        mask[half + 1 :] = 0
        return self.conv(x, {f"{name}.w": w * mask, f"{name}.b": p[f"{name}.b"]}, name, 1, half)

    def batch_norm(self, x: Any, p: dict, name: str, activation: str) -> Any:
        """Without running means: nothing reads them in these steps, and compiled code would leave them out."""
        mean = x.mean((0, 2, 3), keepdims=True)
        var = jnp.mean((x - mean) ** 2, (0, 2, 3), keepdims=True)
        y = (x - mean) * jax.lax.rsqrt(var + 1e-5)
        return ACTIVATIONS[activation](y * p[f"{name}.w"][:, None, None] + p[f"{name}.b"][:, None, None])

    def group_norm(self, x: Any, weight: Any, bias: Any) -> Any:
        n, c, h, w = x.shape
        y = x.reshape(n, 8, c // 8, h, w)
        mean = y.mean((2, 3, 4), keepdims=True)
        y = (y - mean) * jax.lax.rsqrt(((y - mean) ** 2).mean((2, 3, 4), keepdims=True) + 1e-5)
        return y.reshape(n, c, h, w) * weight[:, None, None] + bias[:, None, None]

    def group_norm_silu(self, x: Any, p: dict, name: str) -> Any:
        return jax.nn.silu(self.group_norm(x, p[f"{name}.w"], p[f"{name}.b"]))

    def attention(self, x: Any, p: dict, name: str) -> Any:
        n, c, h, w = x.shape
        y = self.group_norm(x, p[f"{name}.norm.w"], p[f"{name}.norm.b"])
        q, k, v = self.conv(y, p, f"{name}.qkv", 1, 0).reshape(n, 3, c, h * w).transpose(1, 0, 3, 2)  # (N, L, C) each
        weights = jax.nn.softmax(q @ k.transpose(0, 2, 1) / float(np.sqrt(c)), axis=-1)
        return x + self.conv((weights @ v).transpose(0, 2, 1).reshape(n, c, h, w), p, f"{name}.out", 1, 0)

    def gaussian_code(self, mu: Any, logvar: Any, eps: Any) -> tuple[Any, Any]:
        return mu + jnp.exp(0.5 * logvar) * eps, 0.5 * jnp.sum(mu * mu + jnp.exp(logvar) - 1 - logvar)

    def bce(self, logits: Any, target: Any) -> Any:
        return jnp.maximum(logits, 0) - logits * target + jnp.log1p(jnp.exp(-jnp.abs(logits)))

    def bce_sum(self, logits: Any, target: Any) -> Any:
        return jnp.sum(self.bce(logits, target))

    def bce_mean(self, logits: Any, target: Any) -> Any:
        return jnp.mean(self.bce(logits, target))

    def flatten(self, x: Any) -> Any:
        return x.reshape(x.shape[0], -1)

    def unflatten(self, x: Any, chw: tuple[int, int, int]) -> Any:
        return x.reshape(x.shape[0], *chw)

    def halves(self, x: Any) -> Any:
        return jnp.split(x, 2, axis=1)

    def concat(self, a: Any, b: Any) -> Any:
        return jnp.concatenate([a, b], axis=1)

    def concat_batch(self, a: Any, b: Any) -> Any:
        return jnp.concatenate([a, b], axis=0)

    def add_channels(self, x: Any, t: Any) -> Any:
        return x + t[:, :, None, None]

    def channels(self, v: Any) -> Any:
        return v[:, None, None]

    def mix(self, x: Any, w: Any) -> Any:
        return jnp.einsum("nchw,dc->ndhw", x, w)

    def log_abs_det(self, w: Any) -> Any:
        return jnp.linalg.slogdet(w)[1]

    def squeeze(self, x: Any) -> Any:
        n, c, h, w = x.shape
        return x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 3, 5, 1, 2, 4).reshape(n, 4 * c, h // 2, w // 2)

    def upsample(self, x: Any) -> Any:
        return x.repeat(2, axis=2).repeat(2, axis=3)

    def clip(self, x: Any, low: float, high: float) -> Any:
        return jnp.clip(x, low, high)

    def sum_of_squares(self, g: Any) -> Any:
        return jnp.sum(g * g, (1, 2, 3))

    def gated(self, x: Any) -> Any:
        a, b = jnp.split(x, 2, axis=1)
        return jnp.tanh(a) * jax.nn.sigmoid(b)

    relu, silu, tanh, sigmoid = map(staticmethod, (jax.nn.relu, jax.nn.silu, jnp.tanh, jax.nn.sigmoid))
    exp, log, sqrt, sum, mean = map(staticmethod, (jnp.exp, jnp.log, jnp.sqrt, jnp.sum, jnp.mean))


class Noise:
    """Noise from JAX's generator: a key, split at every draw."""

    def __init__(self, key: Any):
        self.key = key

    def _next(self) -> Any:
        self.key, key = jax.random.split(self.key)
        return key

    def normal(self, shape: tuple[int, ...]) -> Any:
        return jax.random.normal(self._next(), shape)

    def uniform(self, shape: tuple[int, ...]) -> Any:
        return jax.random.uniform(self._next(), shape)

    def times(self, n: int) -> Any:
        return jax.random.randint(self._next(), (n,), 0, 1000)
