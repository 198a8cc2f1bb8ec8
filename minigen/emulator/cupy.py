"""As much of CuPy as minigen uses, on NumPy's memory, with kernels run by the emulator. Start at `ndarray`, then `RawModule`.

It takes CuPy's place (backend.emulate), so that everything above it runs unchanged. It refuses what CuPy refuses: arrays of
the two kinds in one call, and a conversion to NumPy that nobody asked for. It notices what costs time on a real device:
`counts` has the copies to and from the device, the waits for it, and the launches. New memory holds NaN, as if it were somebody
else's. While a graph is recorded (graphs.py) nothing is computed: `_done` is the door that all work goes through. Names are
CuPy's, so that a test can look whether the real package has them; linear algebra is NumPy's.
"""

from __future__ import annotations

import operator
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import graphs
from .graphs import CUDARuntimeError, Event, Graph, MemoryPool, Stream, get_current_stream, get_elapsed_time, using_allocator
from .names import ARITHMETIC, COMPARISONS, FACTS, FUNCTIONS, LINALG, MAKERS, MANY, METHODS, UFUNCS, WAITING
from .program import Program, mode

counts: Counter[str] = Counter()  # "to device", "to host", "wait", "launch"
_waiting_allowed = True


class ndarray:
    """An array on the device. Made by the functions of this module, never directly."""

    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, array: np.ndarray):
        self._array = array

    dtype = property(lambda self: self._array.dtype)
    shape = property(lambda self: self._array.shape)
    strides = property(lambda self: self._array.strides)
    size = property(lambda self: self._array.size)
    ndim = property(lambda self: self._array.ndim)
    nbytes = property(lambda self: self._array.nbytes)
    itemsize = property(lambda self: self._array.itemsize)
    T = property(lambda self: ndarray(self._array.T))
    mT = property(lambda self: ndarray(self._array.mT))
    real = property(lambda self: ndarray(self._array.real))
    base = property(lambda self: None if self._array.base is None else ndarray(self._array.base))

    @property
    def flags(self) -> Any:
        flags = self._array.flags
        return SimpleNamespace(c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=flags.owndata)

    # ---- to the host: each of these waits for the device

    def get(self) -> np.ndarray:
        graphs.refuse("an array is copied to the host")
        _wait()
        counts["to host"] += 1
        return self._array.copy()

    def item(self) -> Any:
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __bool__(self) -> bool:
        return bool(self.get())

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to make it explicit")

    # ---- NumPy's functions and operators, called on these arrays

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: tuple | None = None, **kwargs: Any) -> Any:
        if method != "__call__" or ufunc.__name__ not in (*UFUNCS, "matmul"):
            return NotImplemented
        return _call(ufunc, *inputs, **kwargs, **({} if out is None else {"out": out[0]}))

    def __array_function__(self, function: Callable, types: Any, args: tuple, kwargs: dict) -> Any:
        module: Any = sys.modules[__name__]
        for part in function.__module__.split(".")[1:]:
            module = getattr(module, part, None)
        own = getattr(module, function.__name__, None)
        return NotImplemented if own is None else own(*args, **kwargs)

    def __getitem__(self, index: Any) -> ndarray:
        return ndarray(np.asarray(_done("a gather", operator.getitem, (self._array, _index(index, reads=True)))))

    def __setitem__(self, index: Any, value: Any) -> None:
        _same_kind(value)
        _done("a copy", operator.setitem, (self._array, _index(index), _bare(value)), writes=True)

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[ndarray]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return repr(self._array)


def _method(name: str) -> Callable:
    own = getattr(np.ndarray, name)

    def run(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        return _call(own, self, *args, **kwargs)

    return run


def _operator(name: str) -> Callable:
    """`array + other` and the like; numbers are welcome, NumPy's arrays are not."""
    own = getattr(np.ndarray, name)

    def run(self: ndarray, *others: Any) -> Any:
        for other in others:  # `any` is CuPy's in this file
            if not isinstance(other, ndarray | np.ndarray | np.generic | int | float):
                return NotImplemented
        return _call(own, self, *others)

    return run


def _in_place(name: str) -> Callable:
    def run(self: ndarray, other: Any) -> ndarray:
        _same_kind(other)
        _done(name, getattr(operator, name), (self._array, _bare(other)), writes=True)
        return self

    return run


for _name in METHODS:
    setattr(ndarray, _name, _method(_name))
for _name in (*COMPARISONS, *ARITHMETIC, *(f"r{name}" for name in ARITHMETIC), "neg", "pos", "abs", "invert"):
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
for _name in ARITHMETIC[:-1]:
    setattr(ndarray, f"__i{_name}__", _in_place(f"i{_name}"))


# ---- between the two kinds of arrays


def _bare(value: Any) -> Any:
    """With NumPy arrays in the place of these."""
    if isinstance(value, ndarray):
        return value._array
    return type(value)(map(_bare, value)) if isinstance(value, tuple | list) else value


def _dressed(value: Any) -> Any:
    """The opposite, for results. There are no scalars: a sum is an array without axes."""
    if isinstance(value, np.ndarray | np.generic):
        return ndarray(np.asarray(value))
    return tuple(map(_dressed, value)) if isinstance(value, tuple | list) else value


def _same_kind(*values: Any) -> None:
    """Raise TypeError, as CuPy does, for NumPy arrays. NumPy's scalars are welcome."""
    for value in values:
        if isinstance(value, np.ndarray):
            raise TypeError(f"Unsupported type {type(value)}: move it to the device first")
        if isinstance(value, tuple | list):
            _same_kind(*value)


def _call(function: Callable, *args: Any, out: Any = None, **kwargs: Any) -> Any:
    _same_kind(*args, *kwargs.values(), out)
    name = function.__name__.strip("_")
    graphs.refuse_library(name)
    if name in ("concatenate", "stack") and len(args[0]) > MANY:
        _to_device()  # their addresses
    if out is not None:
        kwargs["out"] = _bare(out)
    kwargs = {key: _bare(value) for key, value in kwargs.items()}
    result = _done(name, function, tuple(map(_bare, args)), kwargs, writes=out is not None or name == "fill")
    return _dressed(result) if out is None else out


def _done(name: str, function: Callable, args: tuple, kwargs: dict | None = None, writes: bool = False) -> Any:
    """function(*args, **kwargs): now; or, while a graph is recorded, at each launch.

    writes: it changes one of its arguments. Otherwise it is a view of one, or new memory, whose size is then found by a trial.
    """

    def work(args: tuple, kwargs: dict) -> Any:
        with np.errstate(all="ignore"):  # a device has no warnings
            return function(*args, **kwargs)

    def fill(target: np.ndarray, args: tuple, kwargs: dict) -> None:
        target[...] = work(args, kwargs)

    kwargs = kwargs or {}
    if not graphs.recording():
        return work(args, kwargs)
    if writes:
        graphs.record(name, work, (args, kwargs))
        return None
    result = work(args, kwargs)
    if isinstance(result, tuple | list) or _shares(result, (args, kwargs)):
        return result  # views
    result = _poisoned(np.array(result))
    graphs.keep(result)
    graphs.record(name, fill, (result, args, kwargs))
    return result


def _shares(result: Any, value: Any) -> bool:
    """Whether a result is memory of one of the arrays in a value."""
    if isinstance(value, np.ndarray):
        return isinstance(result, np.ndarray) and np.may_share_memory(result, value)
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, tuple | list) and True in [_shares(result, v) for v in value]  # `any` is CuPy's in this file


def _index(index: Any, reads: bool = False) -> Any:
    """An index for NumPy. One with NumPy arrays or lists is copied to the device; a mask that is read has to be waited for."""
    parts = index if isinstance(index, tuple) else (index,)
    for part in parts:
        if isinstance(part, np.ndarray | list):
            _to_device()
        elif reads and isinstance(part, ndarray) and part.dtype == bool:
            _wait()
    return _bare(index)


def _to_device() -> None:
    graphs.refuse("an array is copied from the host")
    counts["to device"] += 1


def _wait() -> None:
    graphs.refuse("the device is waited for")
    counts["wait"] += 1
    if not _waiting_allowed:
        raise RuntimeError("synchronisation with the device, which is forbidden here")


@contextmanager
def allow_synchronize(allow: bool) -> Iterator[None]:
    """cupyx.allow_synchronize: inside this block, waiting for the device is an error, or is not."""
    global _waiting_allowed
    before, _waiting_allowed = _waiting_allowed, allow
    try:
        yield
    finally:
        _waiting_allowed = before


# ---- the functions


def array(values: Any, dtype: Any = None) -> ndarray:
    """A copy on the device."""
    if isinstance(values, ndarray):
        return _dressed(_done("a copy", np.array, (values._array, dtype)))
    _to_device()
    return ndarray(np.array(values, dtype))


def asarray(values: Any, dtype: Any = None) -> ndarray:
    if isinstance(values, ndarray) and (dtype is None or values.dtype == dtype):
        return values
    return array(values, dtype)


def ascontiguousarray(values: ndarray) -> ndarray:
    if not isinstance(values, ndarray):
        return array(values)
    return values if values.flags.c_contiguous else _call(np.ascontiguousarray, values)


def empty(shape: Any, dtype: Any = float) -> ndarray:
    return _new(np.empty(shape, dtype))


def empty_like(values: ndarray, **kwargs: Any) -> ndarray:
    return _new(np.empty_like(values._array, **kwargs))


def _new(array: np.ndarray) -> ndarray:
    _poisoned(array)
    if graphs.recording():
        graphs.keep(array)
        graphs.record("a new array", _poisoned, (array,))
    return ndarray(array)


def _poisoned(array: np.ndarray) -> np.ndarray:
    """NaN, or a strange number: what nobody has written must not look like a result.

    Integers are 0 while a graph is recorded, for they may be indices, and are tried; at a launch they are strange.
    """
    strange = 0 if graphs.recording() else 77
    array.fill(np.nan if array.dtype.kind in "fc" else True if array.dtype.kind == "b" else strange)
    return array


def asnumpy(values: ndarray) -> np.ndarray:
    return values.get()


def _function(name: str, waits: bool = False, module: Any = np) -> Callable:
    own = getattr(module, name)

    def run(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("like", None)  # has brought the call here
        if waits or (name == "where" and len(args) == 1):
            _wait()
        return _call(own, *args, **kwargs)

    run.__name__ = run.__qualname__ = name
    return run


def _fact(name: str) -> Callable:
    own = getattr(np, name)
    return lambda *args, **kwargs: own(*_bare(args), **kwargs)


def _namespace(**members: Any) -> Any:
    return SimpleNamespace(**members)


for _name in (*UFUNCS, *FUNCTIONS, *MAKERS):
    if _name not in globals():
        globals()[_name] = _function(_name)
for _name in FACTS:
    globals()[_name] = _fact(_name)
for _name in WAITING:
    globals()[_name] = _function(_name, waits=True)
linalg = _namespace(**{name: _function(name, module=np.linalg) for name in LINALG})


# ---- kernels


class RawModule:
    """Kernels from their text, compiled at the first launch."""

    def __init__(self, code: str, options: Sequence[str] = ()):
        self._program = Program(code, options)

    def get_function(self, name: str) -> Callable[..., None]:
        """function(grid, block, args, shared_mem=0): launch kernel `name`."""
        if not mode().dry:
            self._program.signature(name)  # raises for one that is not there

        def launch(grid: tuple, block: tuple, args: tuple, *, shared_mem: int = 0) -> None:
            _same_kind(*args)

            def work(*args: Any) -> None:
                counts["launch"] += 1
                self._program.launch(name, grid, block, args, shared_mem)

            if graphs.recording():
                graphs.record(f"kernel {name}", work, _bare(args))
            else:
                work(*_bare(args))

        return launch


class RawKernel:
    """One kernel: kernel(grid, block, args)."""

    def __init__(self, code: str, name: str, options: Sequence[str] = ()):
        self._module, self.name = RawModule(code, options), name

    def __call__(self, grid: tuple, block: tuple, args: tuple, *, shared_mem: int = 0) -> None:
        self._module.get_function(self.name)(grid, block, args, shared_mem=shared_mem)


# ---- the device itself


class Device:
    """The one there is."""

    def __init__(self, id: int = 0):
        self.id = id

    def synchronize(self) -> None:
        _wait()


__version__ = "emulated"
VERSION = 13000
cuda = _namespace(
    Device=Device,
    Event=Event,
    Graph=Graph,
    MemoryPool=MemoryPool,
    Stream=Stream,
    get_current_stream=get_current_stream,
    get_elapsed_time=get_elapsed_time,
    using_allocator=using_allocator,
    nvrtc=_namespace(getVersion=lambda: (VERSION // 1000, 0)),
    runtime=_namespace(
        CUDARuntimeError=CUDARuntimeError,
        driverGetVersion=lambda: VERSION,
        runtimeGetVersion=lambda: VERSION,
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda device: {"name": b"emulated by the CPU", "multiProcessorCount": 1},
    ),
)
