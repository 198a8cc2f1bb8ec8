"""All that a machine with a GPU can tell: whether the CUDA kernels are right there, and how fast. Start at `main`.

    python -m benchmarks.gpu                 the tests that need a GPU, also under compute-sanitizer; a run of every family;
                                             times, as a table and as benchmarks/results/gpu-NAME.json
    python -m benchmarks.gpu --times         the times only
    python -m benchmarks.gpu --smoke         whether this program works: all of it at sizes that mean nothing, on the emulator

A kernel that only moves numbers is held against the rate of a device-to-device copy, a convolution against the rate of a
float32 matrix product, both measured in the same run, and against PyTorch where that is installed. Bytes and operations are
those of the kernel's card: what must be moved and computed, not what this implementation does. Times are medians. Training
steps are launched one by one, and replayed as a graph; PyTorch's are eager, and compiled where that works.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minigen.autograd import backend
from minigen.autograd.backend import KERNELS, move
from minigen.autograd.kernels import conv, elementwise, fused, loss, normalisation, optim, philox, pool, reduction, softmax
from minigen.models import FAMILIES, MODELS
from minigen.random import Generator
from minigen.training.captured import CapturedSteps
from minigen.training.config import RunConfig
from minigen.training.run import train

from . import crossover

RESULTS = Path(__file__).parent / "results"
KINDS = (conv, elementwise, fused, loss, normalisation, optim, philox, pool, reduction, softmax)  # imported: in KERNELS
BATCH, IMAGE = 128, (28, 28, 1)  # of the training steps

PEERED = ("vae-mlp", "vae")  # models whose steps are written in PyTorch below
SMALL = (*PEERED, "gan2d", "realnvp", "ddpm2d", "made2d", "rbm")  # bound by launches; a family each

TESTS = ["-m", "pytest", "tests/gpu", "-m", "gpu", "-q", "-n0", "-p", "no:cacheprovider"]  # one process: one GPU
SANITIZED = [*TESTS, "-k", "test_inputs_are_kept"]
NO_SANITIZER = (
    "compute-sanitizer is not there: it comes with the CUDA toolkit (apt: cuda-sanitizer-13-0, conda: cuda-sanitizer-api); "
    "put it on the PATH and run this again"
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check the CUDA kernels on a GPU, train every family there, and take times.")
    parser.add_argument("--times", action="store_true", help="leave out the tests, the sanitizer and the training")
    parser.add_argument("--smoke", action="store_true", help="try this program on the emulator, at sizes that mean nothing")
    parser.add_argument("--log2", type=int, default=26, help="numbers in a large array, as a power of two (26)")
    parser.add_argument("--out", type=Path, default=None, help="where to write the results (benchmarks/results)")
    args = parser.parse_args(arguments)
    if args.smoke:
        if args.out is None:
            parser.error("--smoke needs --out: its results are none")
        with backend.emulate():
            return measure(args, log2=10, steps=6, device="cuda-emu")
    problem = backend.cuda_problem()
    if problem:
        print(f"benchmarks.gpu: {problem}", file=sys.stderr)
        return 2
    return measure(args, log2=args.log2, steps=300, device="cuda")


def measure(args: argparse.Namespace, log2: int, steps: int, device: str) -> int:
    """All of it, into a file and a picture. Returns 1 where something is not right."""
    smoke = device != "cuda"
    right = {} if args.times else check(smoke)
    found: dict[str, Any] = {"environment": environment(), "copy": copy_rate(log2), "product": product_rate(log2)}
    if not args.times:
        families = {"vae": FAMILIES["vae"]} if smoke else FAMILIES
        found["right"] = right
        found["training"] = {name: train_family(name, steps, device) for name in families}
    print(f"copy {found['copy'] / 1e9:.0f} GB/s, float32 product {found['product'] / 1e12:.1f} TFLOP/s")
    table = calls(1 << max(log2, 16), 1 if smoke else BATCH)  # the least that images of 64 channels fit into
    if smoke:
        table = {name: call for name, call in table.items() if "wide" not in name}
    repeats = 1 if smoke else 20
    found["kernels"] = {name: show(name, kernel_row(found, repeats, *call)) for name, call in table.items()}
    sizes = (3, 8) if smoke else (30, BATCH)
    found["steps"] = {name: show(name, step_row(name, *sizes)) for name in (PEERED[:1] if smoke else SMALL)}
    found["crossover"] = crossover.crossover(min(log2, 24), 2 if smoke else 15)
    name = f"gpu-{found['environment']['device'].replace(' ', '-').lower()}"
    target = args.out or RESULTS / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    crossover.plot(found["crossover"], target.with_suffix(".png"), found["environment"]["device"])
    print(f"written: {target}, {target.with_suffix('.png').name}")
    return 0 if all(status == "passed" for status in right.values()) else 1


def check(smoke: bool = False) -> dict[str, str]:
    """The tests that need a GPU, then the kernels under memcheck and racecheck: what became of each, whatever the others say.

    smoke: look whether there are such tests only, and for the sanitizer not at all.
    """
    if smoke:
        listed = subprocess.run([sys.executable, *TESTS, "--collect-only"], check=False, stdout=subprocess.DEVNULL).returncode
        return {"tests": "passed" if listed == 0 else "failed"}
    found = {"tests": _passed([sys.executable, *TESTS])}
    sanitizer = shutil.which("compute-sanitizer")
    for tool in ("memcheck", "racecheck"):
        command = [str(sanitizer), "--error-exitcode", "9", "--tool", tool, sys.executable, *SANITIZED]
        found[tool] = _passed(command) if sanitizer else "not run: there is no compute-sanitizer"
    if not sanitizer:
        print(NO_SANITIZER, file=sys.stderr)
    return found


def _passed(command: list[str]) -> str:
    return "passed" if subprocess.run(command, check=False).returncode == 0 else "failed"


def train_family(family: str, steps: int, device: str) -> dict[str, float]:
    """A run on digits from the command line's own code: the mean loss of its first and of its last twenty steps.

    A GAN has no loss that falls: its discriminator's is told.
    """
    config = RunConfig(model=FAMILIES[family][1], steps=steps, device=device, log_every=min(20, steps // 2))
    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder), quiet=True)
        lines = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    for term in ("loss", "discriminator", "gap"):
        values = [line[term] for line in lines if term in line]
        if values:
            return show(family, {f"first {term}": values[0], f"last {term}": values[-1]})
    raise RuntimeError(f"a run of {family} reports none of the terms that are told here: {sorted(lines[0])}")


def environment() -> dict[str, Any]:
    cupy = backend.cupy()
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    torch = peer()
    return {
        "device": properties["name"].decode(),
        "multiprocessors": properties["multiProcessorCount"],
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "cuda": cupy.cuda.runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
        "numpy": np.__version__,
        "torch": None if torch is None else torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def peer() -> Any:
    """PyTorch, if it is installed and sees a GPU; with true float32 products, as ours."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch


# ---- time


def seconds(call: Callable[[], object], repeats: int = 20) -> float:
    """The median time of a call on the device, with the caches as the call before left them."""
    events = [(backend.cupy().cuda.Event(), backend.cupy().cuda.Event()) for _ in range(repeats)]
    for _ in range(3):
        call()
    for start, stop in events:
        start.record()
        call()
        stop.record()
    events[-1][1].synchronize()
    return statistics.median(backend.cupy().cuda.get_elapsed_time(*pair) for pair in events) / 1e3


def copy_rate(log2: int) -> float:
    """Bytes per second, read and written, of a copy of a large array."""
    source = backend.cupy().zeros(1 << log2, np.float32)
    target = backend.cupy().zeros(1 << log2, np.float32)

    def copy() -> None:
        target[...] = source

    return 2 * source.nbytes / seconds(copy)


def product_rate(log2: int) -> float:
    """Operations per second of a float32 product of square matrices."""
    side = 1 << min(log2 // 2, 13)
    a = Generator(0, "cuda").normal((side, side))
    return 2 * side**3 / seconds(lambda: backend.cupy().matmul(a, a))


def kernel_row(
    found: dict[str, Any], repeats: int, name: str, args: tuple, kwargs: dict, other: Callable | None = None
) -> dict[str, float]:
    """Time, rates, and what part of the copy's or of the product's rate that is."""
    kernel = KERNELS[name]
    there = tuple(move(a, "cuda") if isinstance(a, np.ndarray) else a for a in args)
    run = kernel.on("cuda")
    time_of = seconds(lambda: run(*there, **kwargs), repeats)
    flops, moved = kernel.card.flops(*args, **kwargs), kernel.card.bytes(*args, **kwargs)
    row = {"us": 1e6 * time_of, "of copy": moved / time_of / found["copy"], "of product": flops / time_of / found["product"]}
    torch = peer()
    if other is not None and torch is not None:
        row["times torch"] = seconds_of_torch(torch, other(torch)) / time_of
    return row


def seconds_of_torch(torch: Any, call: Callable[[], object], repeats: int = 20) -> float:
    events = [tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)) for _ in range(repeats)]
    for _ in range(3):
        call()
    for start, stop in events:
        start.record()
        call()
        stop.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(stop) for start, stop in events) / 1e3


def show(name: str, row: dict[str, float]) -> dict[str, float]:
    print(f"{name:28}" + "  ".join(f"{key} {value:9.3f}" for key, value in row.items()))
    return row


# ---- what is timed


def calls(n: int, batch: int) -> dict[str, tuple]:
    """label -> (kernel, arguments, options, the same in PyTorch): arrays of about n numbers, images of so many in a batch."""
    rng = Generator(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(shape)

    x, g = draw(n), draw(n)
    rows, c = draw(n // 256, 256), draw(256)
    zeros = np.zeros(len(rows), np.float32)
    images, gimages = draw(n // (784 * 64), 784, 64), draw(n // (784 * 64), 784, 64)
    mean, std = np.zeros((len(images), 8), np.float32), np.ones((len(images), 8), np.float32)
    squares = images.reshape(-1, 28, 28, 64)
    target = rng.integers(0, 256, len(rows))
    step = (1, 1e-3, 0.9, 0.999, 1e-8, 0.0)
    table: dict[str, tuple] = {
        "silu": ("silu", (x,), {}),
        "silu_vjp": ("silu_vjp", (g, x), {}),
        "adam": ("adam", (x.copy(), g, x.copy(), abs(x), *step), {}),
        "philox_normal": ("philox_normal", (1, 2, 3, n, 0.0, 1.0, np.float32), {}),
        "sum_rows": ("sum_rows", (rows[None],), {}),
        "softmax": ("softmax", (rows,), {}),
        "cross_entropy": ("cross_entropy", (rows, target), {}),
        "bias_act": ("bias_act", (rows, c, "silu", 0.01), {}),
        "bias_act_vjp": ("bias_act_vjp", (rows, rows, rows, c, "silu", 0.01), {}),
        "sample_normal_kl": ("sample_normal_kl", (rows, rows, rows), {}),
        "layer_norm": ("layer_norm", (rows, c, c, 1e-5), {}),
        "layer_norm_vjp": ("layer_norm_vjp", (rows, rows, c, zeros, zeros + 1, 1e-5), {}),
        "group_norm": ("group_norm", (images, c[:64], c[:64], 8, 1e-5), {"activation": "silu"}),
        "group_norm_vjp": ("group_norm_vjp", (gimages, images, c[:64], c[:64], mean, std, 1e-5), {"activation": "silu"}),
        "max_pool2d": ("max_pool2d", (squares, (2, 2), (2, 2), (0, 0)), {}),
        "upsample_nearest": ("upsample_nearest", (squares[: -(-len(squares) // 4)], (2, 2)), {}),
    }
    for label, shape, channels, kernel, stride in (
        ("first", (batch, 28, 28, 1), 32, 4, 2),
        ("middle", (batch, 14, 14, 32), 64, 4, 2),
        ("wide", (batch, 32, 32, 128), 128, 3, 1),
    ):
        table |= convolutions(label, draw(*shape), draw(kernel, kernel, shape[3], channels), stride)
    return table


def convolutions(label: str, x: np.ndarray, w: np.ndarray, stride: int) -> dict[str, tuple]:
    """The three kernels on one layer with padding 1, beside PyTorch's forward pass in its own memory layout."""
    parameters = ((stride, stride), (1, 1), (1, 1), 1)
    side = (x.shape[1] + 2 - w.shape[0]) // stride + 1
    g = Generator(1).normal((len(x), side, side, w.shape[3]))

    def torchs(torch: Any) -> Callable[[], object]:
        image = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).cuda()
        weight = torch.from_numpy(w.transpose(3, 2, 0, 1).copy()).cuda()
        return lambda: torch.nn.functional.conv2d(image, weight, stride=stride, padding=1)

    return {
        f"conv2d {label}": ("conv2d", (x, w, *parameters), {}, torchs),
        f"conv2d_input {label}": ("conv2d_input", (g, w, x.shape[1:3], *parameters), {}),
        f"conv2d_weight {label}": ("conv2d_weight", (x, g, w.shape[:2], *parameters), {}),
    }


# ---- training steps


def step_row(name: str, steps: int, batch: int) -> dict[str, float]:
    """Milliseconds of a training step on the wall clock, until its loss is known: ours launched one by one and replayed as a
    graph; PyTorch's eager and compiled, for the models that are written in it below.
    """
    entry = MODELS[name]
    shape = (2,) if name.endswith("2d") or name == "realnvp" else IMAGE
    row: dict[str, float] = {}
    x = Generator(2, "cuda").uniform((batch, *shape))
    for kind in ("ms", "captured ms"):
        model = entry.build(shape, entry.config(), Generator(0)).to("cuda")
        optimizers, rng = model.optimizers(), Generator(1, "cuda")
        captured = CapturedSteps(model, rng, optimizers, None)
        step = (lambda c=captured: c(x, {})) if kind != "ms" else (lambda m=model, o=optimizers, r=rng: m.train_step(x, r, o))
        row[kind] = 1e3 * wall(step, steps)
    torch = peer()
    if torch is not None and name in PEERED:
        for kind, compiled in (("torch ms", False), ("torch compiled ms", True)):
            row[kind] = 1e3 * wall(torch_step(torch, name, entry.config(), "cuda", compiled), steps)
        row["times torch"] = row["torch ms"] / row["captured ms"]
    return row


def wall(step: Callable[[], object], steps: int) -> float:
    times = []
    for _ in range(5):
        step()
    for _ in range(steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def torch_step(torch: Any, name: str, config: Any, device: str, compiled: bool = False) -> Callable[[], float]:
    """The same network, loss and optimiser in PyTorch, images channels-first as is usual there; eager, or compiled."""
    nn, f = torch.nn, torch.nn.functional
    h, d, c = config.hidden, config.latent, config.channels
    if name == "vae-mlp":
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, h), nn.Tanh(), nn.Linear(h, h), nn.Tanh(), nn.Linear(h, 2 * d))
        decoder = nn.Sequential(
            nn.Linear(d, h), nn.Tanh(), nn.Linear(h, h), nn.Tanh(), nn.Linear(h, 784), nn.Unflatten(1, (1, 28, 28))
        )
    else:
        encoder = nn.Sequential(
            nn.Conv2d(1, c, 4, 2, 1), nn.ReLU(), nn.Conv2d(c, 2 * c, 4, 2, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(98 * c, h), nn.ReLU(), nn.Linear(h, 2 * d),
        )
        decoder = nn.Sequential(
            nn.Linear(d, h), nn.ReLU(), nn.Linear(h, 98 * c), nn.ReLU(), nn.Unflatten(1, (2 * c, 7, 7)),
            nn.ConvTranspose2d(2 * c, c, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(c, 1, 4, 2, 1),
        )
    model = nn.ModuleList([encoder, decoder]).to(device)
    adam = torch.optim.Adam(model.parameters(), config.lr)
    grey = torch.rand(BATCH, 1, 28, 28, device=device)

    def loss_of(x: Any) -> Any:
        mu, logvar = encoder(x).chunk(2, dim=1)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        reconstruction = f.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum") / BATCH
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum() / BATCH
        return reconstruction + kl

    loss_of = torch.compile(loss_of) if compiled else loss_of

    def step() -> float:
        loss = loss_of(torch.bernoulli(grey))
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss.item()

    return step


if __name__ == "__main__":
    sys.exit(main())
