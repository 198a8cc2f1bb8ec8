"""A run: its configuration, its schedule, its budget, and that looking at it does not change it."""

import dataclasses
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_harness import Tiny, digest, metrics

from minigen import data
from minigen.autograd import backend
from minigen.models import MODELS
from minigen.training import figures, files
from minigen.training.checkpoint import Checkpoints
from minigen.training.config import BUDGET, ConfigError, RunConfig, bounds, fields, read_config
from minigen.training.files import FileError
from minigen.training.run import Run, load_run, train

# ---- the configuration


def values(field, kind):
    """What a field may hold."""
    limits = bounds(field)
    if limits["choices"]:
        return st.sampled_from(limits["choices"])
    low, high = (0 if limits["low"] is None else limits["low"]), limits["high"]
    if kind is bool:
        return st.booleans()
    return st.integers(int(low), high) if kind is int else st.floats(low, high, allow_nan=False, allow_infinity=False)


@st.composite
def configurations(draw):
    model = draw(st.sampled_from(sorted(MODELS)))
    chosen = {"model": model, "data": draw(st.sampled_from(sorted(data.DATASETS)))}
    options = {field.name: draw(values(field, kind)) for field, kind in fields(MODELS[model].config)}
    for field, kind in fields(RunConfig):
        if field.name not in ("model", "data", "options", *BUDGET) and draw(st.booleans()):
            chosen[field.name] = draw(values(field, kind))
    if MODELS[model].cls.not_captured:
        chosen.pop("capture", None)
    elif chosen.get("capture"):
        chosen["device"] = draw(st.sampled_from(["cuda", "cuda-emu"]))
    name = draw(st.sampled_from([None, *BUDGET]))
    if name is not None:
        field, kind = next((f, k) for f, k in fields(RunConfig) if f.name == name)
        chosen[name] = draw(values(field, kind))
    return RunConfig(**chosen, options=MODELS[model].config(**options))


@given(config=configurations())
@settings(deadline=None, max_examples=40)
def test_a_configuration_comes_back_from_its_file(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    files.write_json(folder / "config.json", config.to_json())
    assert read_config(folder) == config


def test_settings_that_are_left_out_have_their_defaults():
    assert RunConfig.from_json({}) == RunConfig()
    assert RunConfig.from_json({"model": "vae-mlp", "options": {"lr": 0.5}}).options == MODELS["vae-mlp"].config(lr=0.5)
    assert RunConfig(model="vae-mlp").options == MODELS["vae-mlp"].config()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "vea"}, "unknown model 'vea'; did you mean vae?"),
        ({"model": ["vae"]}, r"unknown model \['vae'\]"),
        ({"data": "digit"}, "unknown data 'digit'; did you mean digits?"),
        ({"data": None}, "unknown data None"),
        ({"seed": -1}, "seed needs a whole number from 0 to 9223372036854775807, not -1"),
        ({"seed": 1.0}, "seed needs a whole number"),
        ({"seed": True}, "seed needs a whole number"),
        ({"seed": None}, "seed needs a whole number"),
        ({"steps": 0}, "steps needs a whole number of at least 1, not 0"),
        ({"epochs": float("nan")}, "epochs needs a finite number of at least 0.01, not nan"),
        ({"epochs": "1"}, "epochs needs a finite number"),
        ({"minutes": float("inf")}, "minutes needs a finite number"),
        ({"steps": 1, "epochs": 1.0, "minutes": 1.0}, "one budget, not steps and epochs and minutes"),
        ({"backend": "cuda"}, "backend needs one of numpy, numba, not 'cuda'"),
        ({"device": 0}, "device needs one of cpu, cuda, cuda-emu, not 0"),
        ({"colour": 1}, "unknown setting of RunConfig 'colour'; known are model, data"),
        ({"options": {"lr": float("nan")}}, "lr needs a finite number of at least 0.0, not nan"),
        ({"options": {"lr": 10**400}}, "lr needs a finite number"),
        ({"options": {"ema": 1.0}}, "ema needs a finite number from 0.0 to 0.999999, not 1.0"),
        ({"options": {"batch_size": "x" * 100}}, r"batch_size needs .* not 'x{56}\.\.\.$"),
        ({"options": {"latnet": 2}}, "unknown setting of VAEConfig 'latnet'; did you mean latent?"),
        ({"options": None}, "VAEConfig needs settings by name, not None"),
        ([], r"RunConfig needs settings by name, not \[\]"),
    ],
)
def test_what_cannot_be_a_configuration(settings, said):
    with pytest.raises(ConfigError, match=said):
        RunConfig.from_json(settings)


def test_options_of_another_model_are_refused():
    with pytest.raises(ConfigError, match="options of vae are a VAEConfig, not a MLPConfig"):
        RunConfig(options=MODELS["vae-mlp"].config())


# ---- the loop


def tiny(**settings):
    options = {name: settings.pop(name) for name in ("lr", "ema", "batch_size") if name in settings}
    return RunConfig(model="tiny", options=MODELS["tiny"].config(**options), **settings)


def test_lines_and_checkpoints_come_when_they_are_due(tmp_path, bare, capsys):
    run = train(tiny(steps=23, log_every=5, evaluate_every=9, checkpoint_every=4), tmp_path)
    assert run.step == 23
    lines = [(line["step"], "score" if "test_elbo" in line else "means") for line in metrics(tmp_path)]
    due = [(5, "means"), (9, "score"), (10, "means"), (15, "means"), (18, "score"), (20, "means"), (23, "means"), (23, "score")]
    assert lines == due
    assert Checkpoints(tmp_path / "checkpoints").steps() == [20, 23]  # the newest two
    assert "step 9  test_elbo" in capsys.readouterr().err


def test_a_line_of_metrics_is_the_mean_since_the_one_before(tmp_path, bare):
    train(tiny(steps=12, log_every=5), tmp_path, quiet=True)
    run = Run(tiny())
    losses = [run.advance()["loss"] for _ in range(12)]
    means = [line["loss"] for line in metrics(tmp_path) if "loss" in line]
    assert means == pytest.approx([np.mean(losses[:5]), np.mean(losses[5:10]), np.mean(losses[10:])], rel=1e-12)


def test_looking_at_a_run_does_not_change_it(tmp_path, tiny_with_dropout, monkeypatch):
    """However often it is evaluated, drawn, logged and saved."""
    with monkeypatch.context() as patch:
        patch.setattr(figures, "FIGURES", {})
        rarely = train(tiny(steps=4, ema=0.9), tmp_path / "rarely", quiet=True)
    every = {"evaluate_every": 3, "log_every": 1, "checkpoint_every": 1}
    often = train(tiny(steps=4, ema=0.9, **every), tmp_path / "often", quiet=True)
    for part in ("model", "optimizers", "ema", "rng", "order"):
        np.testing.assert_equal(often.state()[part], rarely.state()[part])


@pytest.fixture
def tiny_with_dropout(tiny, monkeypatch):
    """Its loss is another one in evaluation mode, so that a model left in that mode would be noticed."""
    kept = Tiny.loss

    def loss(self, x, rng):
        if not self.training:
            raise AssertionError("trained in evaluation mode")
        return kept(self, x, rng)

    monkeypatch.setattr(Tiny, "loss", loss)


def test_equal_seeds_give_equal_runs_and_others_do_not(tmp_path, bare):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tiny(steps=5, seed=seed), tmp_path / name, quiet=True)
    a, b, c = (digest(tmp_path / name) for name in "abc")
    assert a == b != c
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b") != metrics(tmp_path / "c")


def test_the_start_the_order_and_the_noise_have_streams_of_their_own(tiny):
    run = Run(RunConfig(model="tiny"))
    first = run.rng.normal(5), run.evaluation_rng().normal(5), run.order.rng.normal(5), run.model.mean.data.reshape(-1)[:5]
    assert len({tuple(np.round(draws, 6)) for draws in first}) == 4
    assert not np.array_equal(run.evaluation_rng().normal(5), Run(RunConfig(model="tiny", seed=1)).evaluation_rng().normal(5))


def test_averaged_parameters_follow_their_recursion(bare):
    run = Run(tiny(ema=0.5))
    average = run.model.mean.data.astype(np.float64)
    for t in range(6):
        run.advance()
        decay = min(0.5, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * run.model.mean.data
    own = run.model.mean.data.copy()
    with run.averaged():
        np.testing.assert_allclose(run.model.mean.data, average, rtol=1e-5)
    assert np.array_equal(run.model.mean.data, own)


def test_budgets(tmp_path, bare, monkeypatch):
    assert Run(tiny()).last_step == MODELS["tiny"].config().steps
    assert train(tiny(epochs=1.5, batch_size=100), tmp_path / "epochs", quiet=True).step == 21  # of 14 batches each
    seconds = iter(range(0, 10_000, 2))  # every look at the clock is 2 s of processor time after the one before
    monkeypatch.setattr("minigen.training.run.time.process_time", lambda: next(seconds))
    run = train(tiny(minutes=0.5), tmp_path / "minutes", quiet=True)
    assert (run.step, run.cpu_seconds, run.last_step) == (15, 30, None)


def test_the_backend_can_be_chosen(tmp_path, bare):
    train(tiny(steps=3, backend="numpy"), tmp_path / "numpy", quiet=True)
    assert backend.get_backend() == "numpy"
    train(tiny(steps=3), tmp_path / "numba", quiet=True)
    assert backend.get_backend() == "numba"
    assert metrics(tmp_path / "numpy")[0]["loss"] == pytest.approx(metrics(tmp_path / "numba")[0]["loss"], rel=1e-5)


def test_a_run_can_be_trained_outside_the_main_thread(tmp_path, bare):
    """From a notebook's worker or a server: only the main thread is told of Ctrl-C."""
    thread = threading.Thread(target=train, args=(tiny(steps=3), tmp_path), kwargs={"quiet": True})
    thread.start()
    thread.join()
    assert digest(tmp_path)[0] == 3


# ---- folders


def test_a_new_run_takes_an_empty_folder_and_what_a_killed_one_left_there(tmp_path, bare):
    orphan = tmp_path / f".config.json.{'0' * 16}.part"
    orphan.write_text("torn")
    train(tiny(steps=1), tmp_path, quiet=True)
    assert not orphan.exists()


def test_temporary_files_of_a_killed_run_are_removed(tmp_path, bare):
    train(tiny(steps=1), tmp_path, quiet=True)
    orphans = [tmp_path / folder / f".x.{'0' * 16}.part" for folder in ("", "figures", "checkpoints")]
    for orphan in orphans:
        orphan.write_text("torn")
    train(tiny(steps=2), tmp_path, resume=True, quiet=True)
    assert not any(orphan.exists() for orphan in orphans)


def test_a_run_is_not_overwritten(tmp_path, bare):
    train(tiny(steps=1), tmp_path, quiet=True)
    before = digest(tmp_path)
    with pytest.raises(FileError, match="there is a run in this folder already; add --resume"):
        train(tiny(steps=2), tmp_path, quiet=True)
    assert digest(tmp_path) == before


def test_a_loaded_run_is_the_trained_one(tmp_path, bare):
    run = train(tiny(steps=4, ema=0.9), tmp_path, quiet=True)
    loaded = load_run(tmp_path)
    assert (loaded.step, loaded.cpu_seconds, loaded.config) == (4, run.cpu_seconds, run.config)
    np.testing.assert_equal(loaded.state()["model"], run.state()["model"])
    np.testing.assert_equal(loaded.state()["ema"], run.state()["ema"])


def test_configurations_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().seed = 1
