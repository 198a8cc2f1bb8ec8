"""The layers of workloads.py on PyTorch, as its users write them. Start at `Library`; its variants are at the top.

    eager      channels-first, the default Adam
    tuned      channels-last memory format, fused Adam
    compile    the loss compiled by torch.compile, fused Adam
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as f

from .workload import Workload

ACTIVATIONS: dict[str | None, Callable] = {
    None: lambda x: x,
    "relu": f.relu,
    "silu": f.silu,
    "leaky_relu": lambda x: f.leaky_relu(x, 0.2),
}


class Library:
    """One workload's parameters and optimisers, and the layers that its definition names."""

    xp = np

    def __init__(self, workload: Workload, weights: dict, threads: int, variant: str, device: str = "cpu"):
        torch.set_num_threads(threads)
        self.workload, self.variant, self.version, self.device = workload, variant, torch.__version__, device
        self.format = torch.channels_last if variant == "tuned" else torch.contiguous_format
        self.p = {name: self.image(a).requires_grad_(not workload.samples) for name, a in weights.items()}
        groups = ("g.", "d.") if workload.name == "dcgan" else (workload.trained,)
        self.adams = {}
        for prefix in groups if not workload.samples else ():
            chosen = [t for name, t in self.p.items() if name.startswith(prefix)]
            options = {} if variant == "eager" else {"fused": True}
            adam = torch.optim.Adam(chosen, workload.lr, workload.betas, **options)
            self.adams[prefix if len(groups) > 1 else "adam"] = adam
        self.dtype = next(iter(self.p.values())).dtype
        self.running: dict[str, tuple[Any, Any]] = {}

    def image(self, x: np.ndarray) -> torch.Tensor:
        t = torch.tensor(x, device=self.device)
        return t.contiguous(memory_format=self.format) if t.ndim == 4 else t

    def constants(self, a: np.ndarray) -> torch.Tensor:
        return self.image(a).to(self.dtype)

    def noise(self, seed: int) -> Noise:
        torch.manual_seed(seed)
        return Noise(self.format, self.device)

    def maybe_compiled(self, function: Callable) -> Callable:
        """torch.compile keeps its code by the source of the function, so a new closure of the same source is no new code."""
        return torch.compile(function) if self.variant == "compile" else function

    def step(self, data: dict, noise: Any) -> float:
        return float(self.workload.step(self, self.p, data, noise))

    # ---- training

    def update(self, which: str, loss: Callable[[dict], Any], p: dict) -> float:
        adam = self.adams[which]
        adam.zero_grad()
        value = self.maybe_compiled(loss)(p)
        parameters = adam.param_groups[0]["params"]
        value.backward(inputs=parameters)  # others may require gradients too
        if self.workload.clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self.workload.clip)
        adam.step()
        return value.item()

    def pullback(self, prefix: str, function: Callable[[dict], Any], p: dict) -> tuple[Any, Any]:
        out = function(p)
        return out.detach(), out

    def update_from(self, prefix: str, back: Any, g: Any, p: dict) -> None:
        adam = self.adams[prefix]
        adam.zero_grad()
        back.backward(g)
        adam.step()

    def value_and_input_grad(self, function: Callable[[Any], Any], x: Any) -> tuple[float, Any]:
        leaf = x.detach().requires_grad_()
        value = function(leaf)
        return value.item(), torch.autograd.grad(value, leaf)[0]

    def input_grad(self, function: Callable[[Any], Any], x: Any, create_graph: bool = True) -> Any:
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(function(leaf), leaf, create_graph=create_graph)[0]

    def constant(self, function: Callable[[], Any]) -> Any:
        with torch.no_grad():
            return function()

    def run(self, function: Callable, *arrays: Any) -> Any:
        with torch.no_grad():
            return self.maybe_compiled(function)(*arrays)

    def sample_pixels(self, logits: Callable, p: dict, u: Any, count: int) -> Any:
        """Binary images (N, 1, 28, 28), the first `count` pixels of each drawn by the definition, the others zero."""
        x = torch.zeros_like(u)
        for i in range(count):
            at = (..., *divmod(i, x.shape[3]))
            x[at] = (u[at] < torch.sigmoid(self.run(logits, x)[at])).to(x.dtype)
        return x

    def frozen(self, p: dict) -> dict:
        return {name: t.detach() for name, t in p.items()}

    # ---- layers

    def linear(self, x: Any, p: dict, name: str, activation: str | None = None) -> Any:
        return ACTIVATIONS[activation](f.linear(x, p[f"{name}.w"], p[f"{name}.b"]))

    def conv(self, x: Any, p: dict, name: str, stride: int, padding: int, activation: str | None = None) -> Any:
        return ACTIVATIONS[activation](f.conv2d(x, p[f"{name}.w"], p.get(f"{name}.b"), stride, padding))

    def transposed(self, x: Any, p: dict, name: str, stride: int, padding: int, activation: str | None = None) -> Any:
        return ACTIVATIONS[activation](f.conv_transpose2d(x, p[f"{name}.t"], p.get(f"{name}.b"), stride, padding))

    def masked(self, x: Any, p: dict, name: str, sees_itself: bool) -> Any:
        w = p[f"{name}.w"]
        half = w.shape[2] // 2
        mask = torch.ones(w.shape[2:], device=self.device, dtype=self.dtype)
        mask[half, half + sees_itself :] = 0
        mask[half + 1 :] = 0
        return f.conv2d(x, w * mask, p[f"{name}.b"], 1, half)

    def batch_norm(self, x: Any, p: dict, name: str, activation: str) -> Any:
        fresh = lambda: (torch.zeros_like(p[f"{name}.b"]).detach(), torch.ones_like(p[f"{name}.b"]).detach())
        mean, var = self.running[name] if name in self.running else self.running.setdefault(name, fresh())
        return ACTIVATIONS[activation](f.batch_norm(x, mean, var, p[f"{name}.w"], p[f"{name}.b"], training=True))

    def group_norm_silu(self, x: Any, p: dict, name: str) -> Any:
        return f.silu(f.group_norm(x, 8, p[f"{name}.w"], p[f"{name}.b"]))

    def attention(self, x: Any, p: dict, name: str) -> Any:
        n, c, h, w = x.shape
        y = f.group_norm(x, 8, p[f"{name}.norm.w"], p[f"{name}.norm.b"])
        qkv = self.conv(y, p, f"{name}.qkv", 1, 0).reshape(n, 3, c, h * w).transpose(2, 3)  # (N, 3, L, C)
        y = f.scaled_dot_product_attention(qkv[:, 0], qkv[:, 1], qkv[:, 2])
        return x + self.conv(y.transpose(1, 2).reshape(n, c, h, w), p, f"{name}.out", 1, 0)

    def gaussian_code(self, mu: Any, logvar: Any, eps: Any) -> tuple[Any, Any]:
        z = mu + torch.exp(0.5 * logvar) * eps
        return z, 0.5 * (mu * mu + logvar.exp() - 1 - logvar).sum()

    def bce_sum(self, logits: Any, target: Any) -> Any:
        return f.binary_cross_entropy_with_logits(logits, target, reduction="sum")

    def bce_mean(self, logits: Any, target: Any) -> Any:
        target = torch.full_like(logits, target) if isinstance(target, float) else target
        return f.binary_cross_entropy_with_logits(logits, target)

    def flatten(self, x: Any) -> Any:
        return x.flatten(1)

    def unflatten(self, x: Any, chw: tuple[int, int, int]) -> Any:
        return x.unflatten(1, chw).contiguous(memory_format=self.format)

    def halves(self, x: Any) -> Any:
        return x.chunk(2, dim=1)

    def concat(self, a: Any, b: Any) -> Any:
        return torch.cat([a, b], dim=1)

    def concat_batch(self, a: Any, b: Any) -> Any:
        return torch.cat([a, b], dim=0)

    def add_channels(self, x: Any, t: Any) -> Any:
        return x + t[:, :, None, None]

    def channels(self, v: Any) -> Any:
        return v[:, None, None]

    def mix(self, x: Any, w: Any) -> Any:
        return f.conv2d(x, w[:, :, None, None])

    def log_abs_det(self, w: Any) -> Any:
        return torch.linalg.slogdet(w)[1]

    def squeeze(self, x: Any) -> Any:
        n, c, h, w = x.shape
        return x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(n, 4 * c, h // 2, w // 2)

    def upsample(self, x: Any) -> Any:
        return f.interpolate(x, scale_factor=2, mode="nearest")

    def clip(self, x: Any, low: float, high: float) -> Any:
        return x.clamp(low, high)

    def sum_of_squares(self, g: Any) -> Any:
        return (g * g).sum((1, 2, 3))

    def gated(self, x: Any) -> Any:
        a, b = x.chunk(2, dim=1)
        return torch.tanh(a) * torch.sigmoid(b)

    relu, silu, tanh, sigmoid = map(staticmethod, (f.relu, f.silu, torch.tanh, torch.sigmoid))
    exp, log, sqrt, sum, mean = map(staticmethod, (torch.exp, torch.log, torch.sqrt, torch.sum, torch.mean))


class Noise:
    """Noise in PyTorch's layout, from its own generator."""

    def __init__(self, memory_format: Any, device: str):
        self.format, self.device = memory_format, device

    def normal(self, shape: tuple[int, ...]) -> Any:
        t = torch.empty(shape, device=self.device)
        return (t.contiguous(memory_format=self.format) if t.ndim == 4 else t).normal_()

    def uniform(self, shape: tuple[int, ...]) -> Any:
        t = torch.empty(shape, device=self.device)
        return (t.contiguous(memory_format=self.format) if t.ndim == 4 else t).uniform_()

    def times(self, n: int) -> np.ndarray:
        return torch.randint(0, 1000, (n,)).numpy()
