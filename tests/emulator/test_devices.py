"""Choosing a device: what is said where there is none, and a run on the emulator against one on the CPU."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigen import cli
from minigen.autograd import backend
from minigen.autograd.backend import DeviceError, beside, cuda_problem, use_device
from minigen.emulator import NoCompiler, find_compiler
from minigen.models import MODELS
from minigen.training import figures, files
from minigen.training.config import RunConfig
from minigen.training.run import load_run, train


class NotFound(RuntimeError):
    """As cuda.pathfinder.DynamicLibNotFoundError, which CuPy 14 raises for a wheel without [ctk]."""


NOT_FOUND = 'Failure finding "libnvrtc.so.13 or libnvrtc.so.12": No such file: libnvrtc.so.13 or libnvrtc.so.12'


def a_cupy(driver: int = 13000, runtime: int = 13010, nvrtc: Any = (13, 0), devices: Any = 1) -> types.ModuleType:
    """As much of CuPy as is asked whether there is a GPU; an error is raised where it is asked for."""

    class CUDARuntimeError(RuntimeError):
        pass

    def give(value: Any) -> Any:
        if isinstance(value, Exception):
            raise value if not isinstance(value, LookupError) else CUDARuntimeError(*value.args)
        return value

    module: Any = types.ModuleType("cupy")
    module.ndarray = type("ndarray", (), {})
    module.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            driverGetVersion=lambda: driver,
            runtimeGetVersion=lambda: runtime,
            getDeviceCount=lambda: give(devices),
        ),
        nvrtc=types.SimpleNamespace(getVersion=lambda: give(nvrtc)),
    )
    return module


@pytest.mark.parametrize(
    ("package", "message"),
    [
        (None, r"CuPy is not installed: pip install 'minigen\[cuda13x\]'"),
        (a_cupy(driver=0), r"there is no NVIDIA driver: install one, or leave out --device"),
        (a_cupy(driver=12080), r"the driver knows CUDA 12, CuPy needs CUDA 13: update .*, or install minigen\[cuda12x\]"),
        (a_cupy(driver=11080, runtime=12090), r"knows CUDA 11, CuPy needs CUDA 12: update the driver to one for CUDA 12 "),
        (a_cupy(nvrtc=RuntimeError("none\nin 7 places")), r"NVRTC.* is not found \(none\): pip install 'minigen\[cuda13x"),
        (a_cupy(nvrtc=NotFound(NOT_FOUND)), r"NVRTC.* is not found \(Failure finding .*: pip install 'minigen\[cuda13x\]'"),
        (a_cupy(devices=LookupError("cudaErrorNoDevice")), r"driver finds no usable GPU \(cudaErrorNoDevice\): check nvidia"),
        (a_cupy(devices=0), r"no GPU is visible: check nvidia-smi and CUDA_VISIBLE_DEVICES"),
    ],
)
def test_what_is_missing_is_named_with_its_cure(
    package: Any, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", package)
    with pytest.raises(DeviceError, match=f"--device cuda cannot be used: .*{message}.*; or emulate one, slowly, with --dev"):
        use_device("cuda")
    assert cli.main(["doctor"]) == 0
    assert str(cuda_problem()) in capsys.readouterr().out


def test_a_broken_cupy_is_not_taken_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two wheels of CuPy in one environment, or a library that is missing: installing it once more would not help."""

    def load(name: str) -> Any:
        raise ImportError("libcuda.so.1: cannot open shared object file\nmore", name=name)

    monkeypatch.setattr(backend.importlib, "import_module", load)
    message = r"CuPy is installed, and cannot be imported \(libcuda.so.1: cannot open shared object file\): uninstall"
    with pytest.raises(DeviceError, match=message):
        use_device("cuda")
    with pytest.raises(DeviceError, match=message):
        backend.cupy()


def test_a_gpu_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", a_cupy())
    assert cuda_problem() is None
    assert use_device("cuda") == "cuda"
    assert use_device("cpu") == "cpu"


def test_the_emulator_needs_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    find_compiler.cache_clear()
    try:
        with pytest.raises(NoCompiler, match=r"needs a C\+\+ compiler, and there is none"):
            use_device("cuda-emu")
        assert cli.main(["train", "vae", "--device", "cuda-emu", "--out", str(tmp_path / "run")]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    finally:
        find_compiler.cache_clear()
    assert not backend.emulated()


def test_constants_go_over_once(emulator: None) -> None:
    table, there = np.arange(5.0), backend.move(np.zeros(2), "cuda")
    assert beside(table, np.zeros(2)) is table
    copy = beside(table, there)
    assert np.array_equal(copy.get(), table)
    assert beside(table, there) is copy
    kept = len(backend._constants)
    del table
    assert len(backend._constants) == kept - 1


def of(model: str, device: str, steps: int = 3, data: str = "digits", **options: Any) -> RunConfig:
    options = MODELS[model].config(batch_size=8, **options)
    every = {"log_every": 1, "evaluate_every": 3, "checkpoint_every": 2}
    return RunConfig(model=model, data=data, options=options, steps=steps, device=device, threads=1, **every)


def losses(folder: Path) -> list[dict[str, float]]:
    lines = files.read_lines(folder / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in ("cpu_seconds", "samples_per_second")} for line in lines]


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "FIGURES", {})


def test_a_run_on_the_emulator_is_that_of_the_cpu(emulator: None, no_figures: None, tmp_path: Path) -> None:
    """Losses and scores agree to rounding; the run is resumed bit for bit, and looked at without a GPU."""
    here, there = tmp_path / "cpu", tmp_path / "emu"
    train(of("ddpm", "cpu", base=8), here, quiet=True)
    train(of("ddpm", "cuda-emu", base=8), there, quiet=True)
    a, b = losses(here), losses(there)
    assert [line["step"] for line in a] == [1, 2, 3, 3]
    for line, other in zip(a, b, strict=True):
        assert other == pytest.approx(line, rel=1e-4)
    assert "test_bound" in a[-1]

    half = tmp_path / "half"
    train(of("ddpm", "cuda-emu", 2, base=8), half, quiet=True)
    train(of("ddpm", "cuda-emu", 3, base=8), half, resume=True, quiet=True)
    assert losses(half) == b
    run = load_run(there)
    assert run.device == "cpu"
    assert run.model.sample(2, run.evaluation_rng()).shape == (2, 8, 8, 1)


def test_labels_and_scores_on_the_emulator(emulator: None, tmp_path: Path) -> None:
    """A conditional model gets its labels there, figures are drawn, and nothing of the run is on the device afterwards."""
    folder = tmp_path / "run"
    run = train(of("ddpm2d", "cuda-emu", 3, data="moons", base=8, timesteps=5), folder, quiet=True)
    assert backend.on_gpu(run.batches.x)
    assert (folder / "figures" / "samples.png").stat().st_size > 1000
    assert backend.on_gpu(run.optimizers["adam"].flat.data)
    x, labels = run.batches()
    assert backend.on_gpu(x)
    assert not labels
    backend.cupy().counts.clear()
    run.batches()
    assert not backend.cupy().counts


def test_a_batch_is_that_of_the_cpu(emulator: None) -> None:
    from minigen.training.run import Run

    runs = [Run(of("ddpm", device, base=8, classes=10), load=True) for device in ("cpu", "cuda-emu")]
    for _ in range(230):  # more than an epoch
        (x, labels), (y, others) = (run.batches() for run in runs)
    assert np.array_equal(x, backend.move(y, "cpu"))
    assert np.array_equal(labels["y"], backend.move(others["y"], "cpu"))
    assert runs[0].order.epoch == 2


def test_the_command(emulator: None, no_figures: None, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = str(tmp_path / "run")
    assert cli.main(f"train realnvp --data moons --device cuda-emu --steps 2 --threads 1 --out {folder}".split()) == 0
    out, err = capsys.readouterr()
    assert "a GPU emulated by the CPU: the first step compiles its kernels" in err
    assert "realnvp on moons: 2 steps" in out
    assert files.read_json(tmp_path / "run" / "environment.json")["gpu"] == "emulated by the CPU"
    assert files.read_json(tmp_path / "run" / "config.json")["device"] == "cuda-emu"
    assert cli.main(["sample", folder, "-n", "3"]) == 0


def test_a_captured_run(emulator: None, no_figures: None, tmp_path: Path) -> None:
    """Losses are those of the CPU to rounding; resumed, before and after its steps were recorded, it goes on bit for bit."""
    options = {"hidden": 16, "latent": 2, "ema": 0.9}
    train(of("vae-mlp", "cpu", 7, **options), tmp_path / "cpu", quiet=True)
    config = dataclasses.replace(of("vae-mlp", "cuda-emu", 7, **options), capture=True)
    train(config, tmp_path / "whole", quiet=True)
    whole = losses(tmp_path / "whole")
    for line, other in zip(losses(tmp_path / "cpu"), whole, strict=True):
        assert other == pytest.approx(line, rel=1e-4)
    train(dataclasses.replace(config, steps=6), tmp_path / "parts", quiet=True)
    run = train(config, tmp_path / "parts", resume=True, quiet=True)
    assert losses(tmp_path / "parts")[-1] == pytest.approx(whole[-1], rel=1e-5)
    assert run.ema is not None
    assert run.ema.steps == run.optimizers["adam"].steps == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("vae --capture", "--capture records what a GPU does: add --device cuda"),
        ("ebm2d --data moons --device cuda-emu --capture", "a step of ebm2d cannot be recorded: it reads the energies"),
    ],
)
def test_what_cannot_be_captured_is_refused_at_once(
    arguments: str, message: str, emulator: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(["train", *arguments.split(), "--out", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
