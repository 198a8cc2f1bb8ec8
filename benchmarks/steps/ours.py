"""The layers of workloads.py on minigen: channels-last, fused where the engine has a fused op. Start at `Library`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import minigen
from minigen import Tensor, grad, no_grad, ops
from minigen.autograd.kernels import jit
from minigen.models import MODELS
from minigen.models.pixels import Binary
from minigen.optim import Adam
from minigen.random import Generator

from .workload import Workload


class Library:
    """One workload's parameters and optimisers, and the layers that its definition names."""

    xp = np

    def __init__(self, workload: Workload, weights: dict, threads: int, variant: str):
        jit.set_threads(threads)
        self.workload, self.version = workload, minigen.__version__
        self.dtype = next(iter(weights.values())).dtype
        self.p = {k: Tensor(own_layout(k, a, workload.flat), requires_grad=not workload.samples) for k, a in weights.items()}
        groups = ("g.", "d.") if workload.name == "dcgan" else (workload.trained,)
        self.adams = {}
        for prefix in groups if not workload.samples else ():
            chosen = [t for name, t in self.p.items() if name.startswith(prefix)]
            self.adams[prefix if len(groups) > 1 else "adam"] = Adam(chosen, workload.lr, workload.betas)
        self.running: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def image(self, x: np.ndarray) -> np.ndarray:
        """(N, C, H, W) -> (N, H, W, C); other arrays as they are."""
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if x.ndim == 4 else x

    def constants(self, a: np.ndarray) -> np.ndarray:
        return self.image(a.astype(self.dtype))

    def noise(self, seed: int) -> Noise:
        return Noise(Generator(seed))

    def step(self, data: dict, noise: Any) -> float:
        return float(self.workload.step(self, self.p, data, noise))

    # ---- training

    def update(self, which: str, loss: Callable[[dict], Any], p: dict) -> float:
        value = loss(p)
        adam = self.adams[which]
        adam.zero_grad()
        if len(self.adams) > 1 or self.workload.trained:
            adam.step(grad(value, adam.flat.parameters))  # others require gradients too
        else:
            value.backward()
            if self.workload.clip is not None:
                adam.clip_grad_norm(self.workload.clip)
            adam.step()
        return value.item()

    def pullback(self, prefix: str, function: Callable[[dict], Tensor], p: dict) -> tuple[Tensor, Tensor]:
        out = function(p)
        return out.detach(), out

    def update_from(self, prefix: str, back: Tensor, g: Tensor, p: dict) -> None:
        self.adams[prefix].step(grad(back, self.adams[prefix].flat.parameters, g))

    def value_and_input_grad(self, function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[float, Tensor]:
        leaf = Tensor(x.data, requires_grad=True)
        value = function(leaf)
        return value.item(), grad(value, leaf)

    def input_grad(self, function: Callable[[Tensor], Tensor], x: Any, create_graph: bool = True) -> Any:
        leaf = Tensor(x, requires_grad=True)
        g = grad(function(leaf), leaf, create_graph=create_graph)
        return g if create_graph else g.data

    def constant(self, function: Callable[[], Tensor]) -> np.ndarray:
        with no_grad():
            return function().data

    def run(self, function: Callable, *arrays: Any) -> Any:
        with no_grad():
            return function(*arrays).data

    def sample_pixels(self, logits: Callable, p: dict, u: Any, count: int) -> Any:
        """Binary images (N, 28, 28, 1), the first `count` pixels of each drawn with cached activations, the others zero."""
        model = self.pixelcnn(p, u.shape[1:])
        x, known = np.zeros(u[..., 0].size, self.dtype).reshape(len(u), -1), np.arange(u[0].size) >= count
        with no_grad():
            model.draw(model, x, known, 1 - u.reshape(x.shape).astype(np.float64), None)  # a pixel is 1 where u >= P(0)
        return x.reshape(u.shape)

    def pixelcnn(self, p: dict, shape: tuple[int, ...]) -> Any:
        """Our model of that name, with the workload's parameters."""
        entry = MODELS["pixelcnn"]
        model = entry.build(shape, entry.config(channels=64, blocks=7, gates=True, head=64, positions=False), Generator(0))
        net = model.network
        _, first, second = net.leave
        layers = {"first": net.enter, "h1": first, "h2": second}
        for i, block in enumerate(net.blocks):
            layers |= {f"{i}.gate": block.conv, f"{i}.out": block.mix}
        for name, layer in layers.items():
            w = p[f"{name}.w"].data  # ours keeps the rows of a mask that are not empty, and a matrix for a kernel of 1 x 1
            w = w[: len(layer.weight)] if layer.weight.ndim == 4 else w[0, 0]
            layer.weight, layer.bias = Tensor(w), Tensor(p[f"{name}.b"].data)
        if self.dtype == np.float64:
            model.astype(np.float64)
        model.pixels = ZeroOne()
        return model

    def frozen(self, p: dict) -> dict:
        return {name: t.detach() for name, t in p.items()}

    # ---- layers

    def linear(self, x: Any, p: dict, name: str, activation: str | None = None) -> Any:
        return ops.linear(x, p[f"{name}.w"], p[f"{name}.b"], activation)

    def conv(self, x: Any, p: dict, name: str, stride: int, padding: int, activation: str | None = None) -> Any:
        convolve = partial(ops.conv2d, x, p[f"{name}.w"], stride=stride, padding=padding)
        return self.finish(convolve, p.get(f"{name}.b"), activation)

    def transposed(self, x: Any, p: dict, name: str, stride: int, padding: int, activation: str | None = None) -> Any:
        convolve = partial(ops.conv_transpose2d, x, p[f"{name}.t"], stride=stride, padding=padding)
        return self.finish(convolve, p.get(f"{name}.b"), activation)

    def finish(self, convolve: Callable, bias: Any, activation: str | None) -> Any:
        """A bias alone is added in place; with an activation after it, both are one pass into a new array."""
        return convolve(bias=bias) if activation is None else ops.bias_act(convolve(), bias, activation, negative_slope=0.2)

    def masked(self, x: Any, p: dict, name: str, sees_itself: bool) -> Any:
        """The rows below the centre see nothing, so they are left out; what is left of the mask lies in the last row."""
        w = p[f"{name}.w"]
        half = w.shape[0] // 2
        mask = np.ones((half + 1, w.shape[1], 1, 1), self.dtype)
        mask[half, half + sees_itself :] = 0
        x = ops.pad(x, ((0, 0), (half, 0), (0, 0), (0, 0)))
        return ops.conv2d(x, w[: half + 1] * mask, p[f"{name}.b"], 1, (0, half))

    def batch_norm(self, x: Any, p: dict, name: str, activation: str) -> Any:
        mean, var = self.running.setdefault(name, (np.zeros(x.shape[-1], self.dtype), np.ones(x.shape[-1], self.dtype)))
        return ops.batch_norm(
            x, mean, var, p[f"{name}.w"], p[f"{name}.b"], training=True, activation=activation, negative_slope=0.2
        )

    def group_norm_silu(self, x: Any, p: dict, name: str) -> Any:
        return ops.group_norm_silu(x, 8, p[f"{name}.w"], p[f"{name}.b"])

    def attention(self, x: Any, p: dict, name: str) -> Any:
        n, h, w, c = x.shape
        y = ops.group_norm(x, 8, p[f"{name}.norm.w"], p[f"{name}.norm.b"])
        qkv = ops.reshape(self.conv(y, p, f"{name}.qkv", 1, 0), (n, h * w, 3 * c))
        y = ops.scaled_dot_product_attention(*(qkv[..., i * c : (i + 1) * c] for i in range(3)))
        return x + self.conv(ops.reshape(y, (n, h, w, c)), p, f"{name}.out", 1, 0)

    def gaussian_code(self, mu: Any, logvar: Any, eps: Any) -> tuple[Any, Any]:
        z, kl = ops.sample_normal_kl(mu, logvar, eps)
        return z, ops.sum(kl)

    def bce_sum(self, logits: Any, target: Any) -> Any:
        return ops.binary_cross_entropy_with_logits(logits, target, reduction="sum")

    def bce_mean(self, logits: Any, target: Any) -> Any:
        target = np.full(logits.shape, target, self.dtype) if isinstance(target, float) else target
        return ops.binary_cross_entropy_with_logits(logits, target)

    def flatten(self, x: Any) -> Any:
        return ops.reshape(x, (x.shape[0], -1))

    def unflatten(self, x: Any, chw: tuple[int, int, int]) -> Any:
        return ops.reshape(x, (x.shape[0], chw[1], chw[2], chw[0]))

    def halves(self, x: Any) -> Any:
        half = x.shape[-1] // 2
        return x[..., :half], x[..., half:]

    def concat(self, a: Any, b: Any) -> Any:
        return ops.concat([a, b], axis=-1)

    def concat_batch(self, a: Any, b: Any) -> Any:
        return ops.concat([a, b], axis=0)

    def add_channels(self, x: Any, t: Any) -> Any:
        return x + ops.reshape(t, (t.shape[0], 1, 1, t.shape[1]))

    def channels(self, v: Any) -> Any:
        return v

    def mix(self, x: Any, w: Any) -> Any:
        return ops.matmul(x, w.mT)

    def log_abs_det(self, w: Any) -> Any:
        return ops.slogdet(w)[1]

    def squeeze(self, x: Any) -> Any:
        return ops.space_to_depth(x, 2)

    def upsample(self, x: Any) -> Any:
        return ops.upsample_nearest(x, 2)

    def clip(self, x: Any, low: float, high: float) -> Any:
        return ops.clip(x, low, high)

    def sum_of_squares(self, g: Any) -> Any:
        return ops.sum(ops.square(g), (1, 2, 3))

    gated = staticmethod(ops.gated_tanh)
    relu, silu, tanh, sigmoid = map(staticmethod, (ops.relu, ops.silu, ops.tanh, ops.sigmoid))
    exp, log, sqrt, sum, mean = map(staticmethod, (ops.exp, ops.log, ops.sqrt, ops.sum, ops.mean))


class ZeroOne(Binary):
    """Pixels that the network sees as they are, where our models see -1 and 1."""

    def inputs(self, x: np.ndarray) -> np.ndarray:
        return x


class Noise:
    """Noise in our layout, from our generator."""

    def __init__(self, rng: Generator):
        self.rng = rng

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.rng.normal(_last(shape))

    def uniform(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.rng.uniform(_last(shape))

    def times(self, n: int) -> np.ndarray:
        return self.rng.integers(0, 1000, n)


def _last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape


def own_layout(name: str, a: np.ndarray, flat: dict) -> np.ndarray:
    """A parameter of workloads.py in our layout: convolutions (kh, kw, in, out), their transposes (kh, kw, out, in),
    matrices (in, out). Beside a flattened image the order of its C H W numbers changes too.
    """
    if a.ndim == 4:
        return np.ascontiguousarray(a.transpose(2, 3, 1, 0))  # (out, in, kh, kw), or (in, out, kh, kw) for transposes
    layer, kind = name.rsplit(".", 1)
    if layer in flat:
        side, (c, h, w) = flat[layer]
        order = np.arange(c * h * w).reshape(c, h, w).transpose(1, 2, 0).ravel()
        if side == "out":
            a = a[order]  # the bias too
        elif kind == "w":
            a = a[:, order]
    return np.ascontiguousarray(a.T) if kind == "w" and a.ndim == 2 else a
