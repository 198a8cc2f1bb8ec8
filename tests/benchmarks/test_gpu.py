"""The program that measures a GPU works, as far as an emulated one can tell: what it would need there is there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import gpu
from minigen.autograd import backend
from minigen.emulator import NoCompiler, find_compiler


@pytest.fixture(autouse=True)
def compiler() -> None:
    try:
        find_compiler()
    except NoCompiler as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("options", [["--times"], pytest.param([], marks=pytest.mark.slow)])
def test_smoke(options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "results" / "gpu.json"
    assert gpu.main(["--smoke", "--out", str(out), *options]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert set(found) >= {"environment", "copy", "product", "kernels", "steps", "crossover"}
    assert all(row["us"] > 0 and row["of copy"] > 0 for row in found["kernels"].values())
    assert set(found["steps"]["vae-mlp"]) >= {"ms", "captured ms"}
    assert set(found["crossover"]["softmax"]) == {"n", "cpu", "gpu", "crossover"}
    assert out.with_suffix(".png").stat().st_size > 5_000
    assert ("training" in found) == (not options)
    assert not backend.emulated()


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(backend, "cuda_problem", lambda: "there is none")
    assert gpu.main([]) == 2
    assert capsys.readouterr().err == "benchmarks.gpu: there is none\n"


def test_a_missing_sanitizer_is_told_and_is_no_success(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(gpu, "_passed", lambda command: "passed")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = gpu.check()
    assert found == {"tests": "passed", **dict.fromkeys(("memcheck", "racecheck"), "not run: there is no compute-sanitizer")}
    assert "comes with the CUDA toolkit" in capsys.readouterr().err
    monkeypatch.setattr(shutil, "which", lambda name: "/opt/compute-sanitizer")
    assert set(gpu.check().values()) == {"passed"}
