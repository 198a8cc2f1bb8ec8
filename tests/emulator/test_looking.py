"""minigen sample and minigen evaluate with --device: what they print and write is what they print and write on the CPU.

Start at `test_a_run_is_looked_at_on_a_gpu`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigen import cli
from minigen.autograd import backend
from minigen.models import MODELS
from minigen.training import figures
from minigen.training.config import RunConfig
from minigen.training.run import load_run, train

RUNS: dict[str, tuple[str, dict[str, Any]]] = {  # at least one model of each family: its data, and what makes it small
    "vae-mlp": ("digits", {"hidden": 16, "latent": 2}),
    "gan2d": ("ring-8", {"hidden": 16}),
    "realnvp": ("moons", {"couplings": 2, "hidden": 16}),
    "glow": ("digits", {"hidden": 8, "flow_steps": 1}),
    "rbm": ("digits", {"hidden": 8, "chains": 20, "sampling_steps": 5}),
    "ebm2d": ("moons", {"chains": 100, "hidden": 16, "sampling_steps": 5}),
    "ddpm2d": ("moons", {"base": 8, "timesteps": 8}),
    "ddpm": ("digits", {"base": 8, "timesteps": 3, "sampling_steps": 3}),
    "ncsn2d": ("moons", {"base": 8, "noises": 3, "chain_steps": 2}),
    "made2d": ("moons", {"hidden": 16, "components": 2}),
    "pixelcnn": ("digits", {"channels": 4, "layers": 1}),
}


def options(name: str) -> Any:
    kind = MODELS[name].config
    given = {field: v for field, v in RUNS[name][1].items() if field in kind.__dataclass_fields__}
    return kind(batch_size=16, **given)


def numbers(text: str) -> list[float]:
    return [float(n) for n in re.findall(r"-?\d+\.\d+", text)]


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name == "ddpm" else ()) for name in RUNS])
def test_a_run_is_looked_at_on_a_gpu(
    name: str, emulator: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(figures, "FIGURES", {})
    monkeypatch.setattr(figures, "scores", lambda run: {})
    folder = tmp_path / "run"
    config = RunConfig(model=name, data=RUNS[name][0], options=options(name), steps=3, threads=1)
    train(config, folder, quiet=True)
    capsys.readouterr()
    found, arrays = [], []
    for device in ("cpu", "cuda-emu"):
        out = str(tmp_path / device)
        assert cli.main(["sample", str(folder), "-n", "5", "--device", device, "--out", out]) == 0, capsys.readouterr().err
        arrays.append(np.load(f"{out}.npy"))
        capsys.readouterr()
        arguments = ["evaluate", str(folder), "-n", "6", "-k", "2", "--samples", "10" if len(arrays[0].shape) == 2 else "0"]
        assert cli.main([*arguments, "--device", device]) == 0, capsys.readouterr().err
        found.append(capsys.readouterr().out)
    np.testing.assert_allclose(arrays[1], arrays[0], rtol=1e-3, atol=1e-3)
    words = [re.sub(r"-?\d+\.\d+", "#", text) for text in found]
    assert words[0] == words[1]
    assert numbers(found[1]) == pytest.approx(numbers(found[0]), rel=1e-3, abs=2e-3)


def test_the_model_is_there(emulator: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model that is looked at lies on the device, and draws there; a captured run needs no device to be looked at."""
    monkeypatch.setattr(figures, "FIGURES", {})
    monkeypatch.setattr(figures, "scores", lambda run: {})
    config = RunConfig(
        model="vae-mlp", data="digits", options=options("vae-mlp"), steps=6, threads=1, device="cuda-emu", capture=True
    )
    run = train(config, tmp_path, quiet=True)
    assert run.captured is not None
    assert run.captured.kinds[0][0].graphs
    there, here = load_run(tmp_path, "cuda-emu"), load_run(tmp_path)
    with figures.looking_at(there) as model:
        assert backend.on_gpu(model.sample(2, there.evaluation_rng()))
    with figures.looking_at(here) as model:
        assert isinstance(model.sample(2, here.evaluation_rng()), np.ndarray)
