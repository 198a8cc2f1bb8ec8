"""Mistakes put into our own code, for the length of a test. Start at `plant`."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

import pytest


def plant(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, text: str, new: str) -> Any:
    """Replace `text` by `new` in the source of owner.name, a function of a module, or a method. Returns the new one.

    A mistake that no longer finds its text fails: the code has changed, and the mistake must follow.
    """
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    assert text in source, f"{name} has no {text!r}: mend the mistake"
    scope = dict(vars(inspect.getmodule(function)))
    exec(compile(source.replace(text, new), f"<{name} with a mistake>", "exec"), scope)
    monkeypatch.setattr(owner, name, scope[name])
    return scope[name]
