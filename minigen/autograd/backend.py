"""Which implementation of a kernel runs, and the contract that every kernel keeps.

Start at `Kernel`: one numerical routine with up to three implementations under the same name and arguments,

    kernels/<family>/reference.py   plain NumPy, the readable definition
    kernels/<family>/cpu.py         Numba
    kernels/<family>/cuda.cu        CUDA C, launched by cuda.py beside it

and one `Card` that says what it costs and how exact it is. Arrays on a GPU take the third. For arrays on the CPU,
`set_backend` chooses between the first two for the whole process, or inside a `with` block, so that a reader can step
through pure NumPy in a debugger.
"""

from __future__ import annotations

import importlib
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy import ndarray

BACKENDS = {"numpy": "reference", "numba": "cpu"}  # backend of the CPU -> the module of a kernel family that holds it

KERNELS: dict[str, Kernel] = {}  # every kernel of the project, by name


@dataclass(frozen=True)
class Card:
    """What a kernel costs, how exact it is, and on what to try it. Tests and benchmarks are generated from cards.

    cases(rng, dtype) -> list of (args, kwargs): calls to try, small odd sizes first, among them sizes of 0 and 1;
        arrays in C order of `dtype` (float32 or float64).
    flops(*args, **kwargs), bytes(*args, **kwargs) -> int: arithmetic operations of one call (a fused multiply-add
        counts as two) and compulsory memory traffic (each input read once, each output written once).
    ulp: largest allowed |cpu - reference| / (eps(dtype) * scale), where the reference runs in float64.
    scale(*args, **kwargs) -> array like the output: the magnitude that rounding is relative to. None stands for
        |output|; a sum gives the sum of magnitudes instead. For several outputs, a tuple.
    writes: positions of the arguments that the kernel updates in place (an optimiser's state); no other is changed.
    note: what a reader should know about the accuracy, for instance what is accumulated in float64.
    """

    cases: Callable[[np.random.Generator, type], list[tuple[tuple, dict]]]
    flops: Callable[..., int]
    bytes: Callable[..., int]
    ulp: float
    scale: Callable[..., Any] | None = None
    writes: tuple[int, ...] = ()
    note: str = ""


class Kernel:
    """One numerical routine on raw arrays: `kernel(*arrays, **parameters)` runs the implementation that is selected.

    name: the function's name in each implementation module of `family`, a package such as
        "minigen.autograd.kernels.conv". Modules are imported at first use, so that `import minigen` stays fast.
    """

    def __init__(self, name: str, family: str, card: Card):
        if name in KERNELS:
            raise ValueError(f"kernel {name!r} is defined twice: in {KERNELS[name].family} and {family}")
        self.name: str = name
        self.family: str = family
        self.card: Card = card
        self.active: Callable[..., Any] = self._load
        self.cuda: Callable[..., Any] = self._load_cuda
        KERNELS[name] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if type(args[0]) is ndarray or not on_gpu(args[0]):
            return self.active(*args, **kwargs)
        return self.cuda(*args, **kwargs)

    def implementation(self, backend: str) -> Callable[..., Any]:
        """The function that runs this kernel on `backend` ("numpy", "numba" or "cuda").

        Raises DeviceError for "cuda" where a kernel has no CUDA version.
        """
        path = f"{self.family}.{BACKENDS.get(backend, backend)}"
        try:
            return getattr(importlib.import_module(path), self.name)
        except (ModuleNotFoundError, AttributeError) as error:
            if backend != "cuda" or (isinstance(error, ModuleNotFoundError) and error.name != path):
                raise
            message = f"kernel {self.name!r} of {self.family} has no CUDA version: move its inputs with .to('cpu')"
            raise DeviceError(message) from error

    def on(self, device: str) -> Callable[..., Any]:
        """The kernel for "cpu" or "cuda", for those that make arrays and are given none: random numbers."""
        return self.cuda if device == "cuda" else self.active

    def _load(self, *args: Any, **kwargs: Any) -> Any:
        """First call after the backend was chosen: look the implementation up, then run it."""
        self.active = self.implementation(get_backend())
        return self.active(*args, **kwargs)

    def _load_cuda(self, *args: Any, **kwargs: Any) -> Any:
        """First call with arrays on a GPU."""
        self.cuda = self.implementation("cuda")
        return self.cuda(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<kernel {self.name} of {self.family}>"


_selected = "numba"


def get_backend() -> str:
    """The selected CPU backend, "numpy" or "numba"."""
    return _selected


class set_backend:  # in small letters: it reads as a function, and works in a `with` statement
    """Choose the implementation of every kernel on the CPU: "numba" (the default, fast) or "numpy" (readable).

    >>> set_backend("numpy")            # for the whole process
    >>> with set_backend("numpy"):      # for a block
    ...     loss = model.loss(x, rng)

    Raises ValueError for another name.
    """

    def __init__(self, name: str):
        if name not in BACKENDS:
            raise ValueError(f"unknown backend {name!r}: choose one of {', '.join(map(repr, BACKENDS))}")
        self.previous = _selected
        _select(name)

    def __enter__(self) -> set_backend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _select(self.previous)


def _select(name: str) -> None:
    global _selected
    _selected = name
    for kernel in KERNELS.values():
        kernel.active = kernel._load


# ---- devices


class DeviceError(RuntimeError):
    """A device that cannot be used, with the reason and the way out."""


CUPY = "cupy"  # the package that holds arrays of a GPU
EMULATOR = "minigen.emulator"  # the one room above that is used here, and only when asked for
STAND_IN = f"{EMULATOR}.cupy"  # takes CuPy's place where there is no GPU

_package = CUPY
FORGETS: list[Callable[[], None]] = []  # what to call when another package holds the arrays: see `_use`


class emulate:  # like set_backend: for the process, or for a `with` block
    """From now on "cuda" means the emulator: arrays in NumPy's memory, and kernels run on the CPU, for those without a GPU.

    Raises DeviceError where there is no C++ compiler to run kernels with, unless none is to be compiled.
    """

    def __init__(self, compile: bool = True) -> None:
        if compile:
            importlib.import_module(EMULATOR).find_compiler()
        self.previous = _package
        _use(STAND_IN)

    def __enter__(self) -> emulate:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _use(self.previous)


def _use(package: str) -> None:
    """Choose what holds arrays of a GPU; kernels that were compiled for the other are forgotten."""
    global _package
    if package == _package:
        return
    _package = package
    for forget in FORGETS:
        forget()


DEVICES = ("cpu", "cuda", "cuda-emu")


def use_device(name: str) -> str:
    """Make ready what the option --device names, for the process. Returns where arrays then are: "cpu" or "cuda".

    "cuda-emu" is the emulator, see `emulate`. Raises DeviceError, with the way out, for what cannot be used.
    """
    if name == "cuda-emu":
        emulate()
    elif name == "cuda":
        _use(CUPY)
        problem = cuda_problem()
        if problem:
            raise DeviceError(f"--device cuda cannot be used: {problem}; or emulate one, slowly, with --device cuda-emu")
    return name.removesuffix("-emu")


def emulated() -> bool:
    """Whether "cuda" means the emulator."""
    return _package == STAND_IN


def cupy() -> Any:
    """The package that holds arrays of a GPU: the one place that imports it. Raises DeviceError where it is missing."""
    try:
        return importlib.import_module(_package)
    except ImportError as error:
        raise DeviceError(f"cannot use device 'cuda': {_no_cupy(error)}") from error


def on_gpu(value: Any) -> bool:
    """Whether it is an array on a GPU. There can be none before CuPy was imported."""
    module = sys.modules.get(_package)
    return module is not None and isinstance(value, module.ndarray)


EXTRAS = (12, 13)  # major versions of CUDA that an extra of this package brings CuPy for


def _no_cupy(error: ImportError) -> str:
    """Why CuPy cannot be imported, and what to do about it."""
    if isinstance(error, ModuleNotFoundError) and error.name in (None, CUPY):
        return "CuPy is not installed: pip install 'minigen[cuda13x]' (or cuda12x, to match your driver)"
    reason = str(error).strip().partition("\n")[0]
    return f"CuPy is installed, and cannot be imported ({reason}): uninstall every cupy, then pip install 'minigen[cuda13x]'"


def cuda_problem() -> str | None:
    """Why arrays cannot be put on a GPU, and what to do about it, in one sentence; None if they can."""
    try:
        cuda = importlib.import_module(_package).cuda
    except ImportError as error:
        return _no_cupy(error)
    runtime = cuda.runtime
    driver, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if driver == 0:
        return "there is no NVIDIA driver: install one, or leave out --device to use the CPU"
    if driver // 1000 < needed // 1000:
        known, wanted = driver // 1000, needed // 1000
        other = f", or install minigen[cuda{known}x]" if known in EXTRAS else f" to one for CUDA {EXTRAS[0]} or later"
        return f"the driver knows CUDA {known}, CuPy needs CUDA {wanted}: update the driver{other}"
    try:
        cuda.nvrtc.getVersion()
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        return f"NVRTC, which compiles kernels, is not found ({reason}): pip install 'minigen[cuda{needed // 1000}x]'"
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        return f"the driver finds no usable GPU ({error}): check nvidia-smi and CUDA_VISIBLE_DEVICES"
    return None if count else "no GPU is visible: check nvidia-smi and CUDA_VISIBLE_DEVICES"


def gpu_name() -> str:
    """What the GPU calls itself."""
    return cupy().cuda.runtime.getDeviceProperties(0)["name"].decode()


def move(array: Any, device: str) -> Any:
    """Copy a raw array to "cpu" or "cuda". Raises ValueError for another name, DeviceError if there is no usable GPU."""
    if device not in ("cpu", "cuda"):
        raise ValueError(f"unknown device {device!r}: choose 'cpu' or 'cuda'")
    if device == "cpu":
        return array if isinstance(array, np.ndarray | np.generic) else array.get()
    if on_gpu(array):
        return array
    problem = cuda_problem()
    if problem:
        raise DeviceError(f"cannot use device 'cuda': {problem}")
    if cupy().cuda.get_current_stream().is_capturing():  # a graph would read the host's memory, whatever is there by then
        raise DeviceError("an array is copied to the GPU while a step is recorded: pass it to the step, or make it before")
    return cupy().asarray(array)


_constants: dict[tuple[int, str], tuple[Any, Any]] = {}  # (id of an array, package) -> a weak reference to it, and its copy


def beside(constant: np.ndarray, array: Any) -> Any:
    """A NumPy array that never changes (a table, a mask), on the device of `array`: itself, or a copy that is made once."""
    if not on_gpu(array):
        return constant
    key = id(constant), _package
    if key not in _constants:
        forget = weakref.ref(constant, lambda dead: _constants.pop(key, None))
        _constants[key] = forget, move(constant, "cuda")
    return _constants[key][1]


def alike(values: Any, array: Any) -> Any:
    """An array, on the device of another."""
    return move(values, "cuda" if on_gpu(array) else "cpu")


def assign(target: Any, values: Any) -> None:
    """target[...] = values, whichever device each of the two arrays is on."""
    target[...] = alike(values, target)
