"""Every public function and class says what it does, and that it raises if it does."""

import ast
import dataclasses
import functools
import importlib
import inspect
import pkgutil
import textwrap

import pytest

import minigen
from minigen.models import ModelConfig

# Not here: the stand-in for CuPy, whose names are CuPy's and mean what they mean there; files that only launch CUDA kernels,
# whose twins in reference.py are described; what `python -m` runs.
EXCEPT = ("minigen.emulator.cupy", ".cuda", ".__main__")
# What kernels and cards raise is not told: it shows a mistake in the op that calls them, which checks what users give.
INSIDE = ("minigen.autograd.cards", "minigen.autograd.kernels")

MODULES = ["minigen", *(found.name for found in pkgutil.walk_packages(minigen.__path__, "minigen."))]
MODULES = [name for name in MODULES if not name.endswith(EXCEPT)]

WRAPPED = (property, functools.cached_property, classmethod, staticmethod)


def public(module):
    """(name, function, class, property or op) of a module, and of its public classes."""
    for name, value in vars(module).items():
        value = getattr(value, "forward", value) if type(value).__name__ == "Op" else value
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value) or inspect.isclass(value):
            yield name, value, None
        if inspect.isclass(value):
            for method, member in vars(value).items():
                if not method.startswith("_") and (inspect.isfunction(member) or isinstance(member, WRAPPED)):
                    yield f"{name}.{method}", member, value


def documentation(name, value, owner, module):
    """The docstring: its own, that of the method it overrides, or for a compiled kernel that of the reference."""
    if owner is not None:
        return inspect.getdoc(getattr(owner, name.rpartition(".")[2]))
    if value.__doc__ is None and ".kernels." in module.__name__:
        reference = importlib.import_module(module.__name__.rpartition(".")[0] + ".reference")
        return getattr(getattr(reference, name, None), "__doc__", None)
    if dataclasses.is_dataclass(value) and (value.__doc__ or "").startswith(f"{value.__name__}("):
        return _of_options(value)  # the text that Python makes tells nothing
    return value.__doc__


def _of_options(config):
    """A model's options: what each means stands beside it, and in `minigen train MODEL --help`."""
    if not issubclass(config, ModelConfig):
        return None
    return "; ".join(field.metadata["help"] for field in dataclasses.fields(config))


@pytest.mark.parametrize("module_name", MODULES)
def test_what_is_public_is_documented(module_name):
    module = importlib.import_module(module_name)
    assert module.__doc__, "a file opens with what is in it and where to start"
    missing = [name for name, value, owner in public(module) if not documentation(name, value, owner, module)]
    assert not missing, f"without a docstring: {', '.join(missing)}"


@pytest.mark.parametrize("module_name", [name for name in MODULES if not name.startswith(INSIDE)])
def test_what_raises_says_so(module_name):
    module = importlib.import_module(module_name)
    silent = []
    for name, value, owner in public(module):
        for inner in ("fget", "func", "__func__"):  # of a property, a cached property, a class method
            value = getattr(value, inner, value)
        if not inspect.isfunction(value):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
        about = f"{documentation(name, value, owner, module)} {owner.__doc__ if owner else ''}"
        if any(isinstance(node, ast.Raise) for node in ast.walk(tree)) and "aise" not in about and "Error" not in about:
            silent.append(name)
    assert not silent, f"raise, and do not say it: {', '.join(silent)}"
