"""Every public function and class says what it does, and that it raises if it does."""

import ast
import importlib
import inspect
import pkgutil
import textwrap

import pytest

PACKAGES = (
    "minigen.autograd.cards", "minigen.autograd.kernels", "minigen.autograd.ops", "minigen.data", "minigen.evaluation",
    "minigen.nn", "minigen.optim", "minigen.random", "minigen.training",
)  # fmt: skip


def modules():
    for name in PACKAGES:
        package = importlib.import_module(name)
        yield name
        for found in pkgutil.walk_packages(getattr(package, "__path__", []), name + "."):
            yield found.name


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
                if not method.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                    yield f"{name}.{method}", member, value


def documentation(name, value, owner, module):
    """The docstring: its own, that of the method it overrides, or for a compiled kernel that of the reference."""
    if owner is not None:
        return inspect.getdoc(getattr(owner, name.rpartition(".")[2]))
    if value.__doc__ is None and ".kernels." in module.__name__:
        reference = importlib.import_module(module.__name__.rpartition(".")[0] + ".reference")
        return getattr(getattr(reference, name, None), "__doc__", None)
    return value.__doc__


@pytest.mark.parametrize("module_name", [name for name in modules() if not name.endswith(".cuda")])
def test_what_is_public_is_documented(module_name):
    module = importlib.import_module(module_name)
    assert module.__doc__, "a file opens with what is in it and where to start"
    missing = [name for name, value, owner in public(module) if not documentation(name, value, owner, module)]
    assert not missing, f"without a docstring: {', '.join(missing)}"


@pytest.mark.parametrize("module_name", [name for name in modules() if name.startswith(PACKAGES[2:])])
def test_what_raises_says_so(module_name):
    module = importlib.import_module(module_name)
    silent = []
    for name, value, owner in public(module):
        if not inspect.isfunction(value):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
        about = f"{documentation(name, value, owner, module)} {owner.__doc__ if owner else ''}"
        if any(isinstance(node, ast.Raise) for node in ast.walk(tree)) and "aise" not in about and "Error" not in about:
            silent.append(name)
    assert not silent, f"raise, and do not say it: {', '.join(silent)}"
