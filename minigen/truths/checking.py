"""`minigen check`: which truths hold for a class, which fail, which do not apply. Start at `check`.

A subject is a built-in model or family, by name, or a reader's own class as "my_module:MyDDPM". What a class must have is told
in docs/truths.md, and by each truth in `needs` and `made_of`.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..models import FAMILIES, MODELS, Entry
from ..random import Generator
from .truth import Finding, Truth

SMALL = {"hidden": 16, "base": 16, "channels": 6, "blocks": 2, "layers": 2, "levels": 2}  # of the example of a built-in model


class SubjectError(ValueError):
    """There is no such subject. One line: what was asked for, why not, and the way out."""


@dataclass(frozen=True)
class Verdict:
    """What a truth says of a class.

    state: "holds", "fails", or "does not apply".     reason: why it does not apply, or what was raised.
    findings: what was compared, those that fail first.
    """

    truth: Truth
    state: str
    reason: str = ""
    findings: tuple[Finding, ...] = ()

    def __str__(self) -> str:
        if self.state == "holds":
            n = len(self.findings)
            return f"{self.truth.name} holds: {self.truth.claim} ({f'{n} values agree' if n > 1 else 'one value agrees'})"
        if self.state == "does not apply":
            return f"{self.truth.name} does not apply: {self.reason}"
        lines = [f"{self.truth.name} FAILS: {self.truth.claim}"]
        wrong = [finding for finding in self.findings if not finding.holds]
        for finding in wrong[:3]:
            lines.append(f"    {finding.what} is {finding.value:.10g}, and must be {finding.expected:.10g}")
            if finding.mistake:
                lines.append(f"        just what comes out if {_lower(finding.mistake)}")
            elif finding.rounded:
                lines.append("        off by no more than float32 rounds: does it compute in float32? It is given float64")
        if len(wrong) > 3:
            lines.append(f"    and {len(wrong) - 3} more of {len(self.findings)} values")
        if self.reason:
            lines.append(f"    {self.reason}")
        if self.truth.mistakes and not any(finding.mistake for finding in wrong):
            lines.append(f"    likely: {self.truth.mistakes}")
        lines.append(f"    see {self.truth.source}")
        return "\n".join(lines)


def check(cls: type, truths: Any) -> Iterator[Verdict]:
    """The verdict of each truth on a class, in their order. What a truth raises is a failure, told with its place."""
    for truth in truths:
        lack = truth.lacks(cls)
        if lack:
            yield Verdict(truth, "does not apply", lack)
            continue
        try:
            findings = tuple(truth.check(cls))
        except Exception as error:  # whatever a reader's class does wrong; told, not hidden
            yield Verdict(truth, "fails", _raised(error))
            continue
        if not findings:
            yield Verdict(truth, "does not apply", f"{cls.__name__} supports none of what it is about")
        else:
            state = "holds" if all(finding.holds for finding in findings) else "fails"
            yield Verdict(truth, state, "", tuple(sorted(findings, key=lambda finding: finding.holds)))


def _raised(error: Exception) -> str:
    """What was raised, and where: the last place that is not in this package, or the last."""
    places = traceback.extract_tb(error.__traceback__)
    here = str(Path(__file__).parents[1])
    place = ([p for p in places if not p.filename.startswith(here)] or list(places))[-1]
    return f"raised {type(error).__name__} in {Path(place.filename).name}, line {place.lineno}: {error}"


def _lower(text: str) -> str:
    """Without the capital of an ordinary word."""
    return text[0].lower() + text[1:] if text[1:2].islower() else text


# ---- subjects


def subjects(name: str) -> list[tuple[str, type]]:
    """What is meant by a name: (what to call it, the class). A family has a model for points and one for images.

    Raises SubjectError.
    """
    if ":" in name:
        return [(name, own_class(name))]
    models = [name] if name in MODELS else list(dict.fromkeys(FAMILIES.get(name, ())))
    if not models:
        known = ", ".join(dict.fromkeys([*FAMILIES, *MODELS]))
        raise SubjectError(f"nothing to check is called {name!r}: give a model ({known}), or a class as my_module:MyModel")
    return [(model, built_in(MODELS[model])) for model in models]


def built_in(entry: Entry) -> type:
    """The class of a built-in model, with the examples that some truths ask for: of points, and of images of two sizes."""
    config: Any = entry.config()
    small = {f.name: SMALL[f.name] for f in fields(config) if f.name in SMALL}
    shapes = {"example": (2,), "example_images": (3, 4, 1), "example_8x8": (8, 8, 1)}
    examples = {}
    for name, shape in shapes.items():
        try:
            entry.build(shape, replace(config, **small), Generator(0))
        except ValueError:  # not for this shape
            continue
        examples[name] = staticmethod(_random(entry, shape, replace(config, **small)))
    return type(entry.cls.__name__, (entry.cls,), {**examples, "__module__": entry.cls.__module__})


def _random(entry: Entry, shape: tuple[int, ...], config: Any) -> Callable[[Generator], Any]:
    """Makes a model of this shape, in float64, with random numbers in all parameters."""

    def example(rng: Generator) -> Any:
        model = entry.build(shape, config, rng).astype(np.float64)
        model.eval()
        noise = np.random.default_rng(0)
        for p in model.parameters():
            size = 0.1 if p.data.any() else 0.3 if p.ndim > 1 else 0.15  # what starts at 0 hides what is behind it
            p.data[...] += size * noise.normal(size=p.shape) / np.sqrt(max(1, p.shape[0] if p.ndim > 1 else 1))
        return model

    return example


def own_class(name: str) -> type:
    """The class that "module:Class" names; the module is looked for in the current folder too. Raises SubjectError."""
    module_name, _, class_name = name.partition(":")
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name.removesuffix(".py").replace("/", "."))
    except Exception as error:  # whatever importing it raises
        raise SubjectError(f"{module_name} cannot be imported: {_raised(error)}; give module:Class, from its folder") from error
    finally:
        sys.path[:] = before
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        own = [n for n, value in vars(module).items() if isinstance(value, type) and value.__module__ == module.__name__]
        raise SubjectError(f"{module_name} has no class {class_name!r}; it has {', '.join(own) or 'none'}")
    return found
