"""A run that was stopped and resumed ends bit for bit where one that was not stopped ends."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from run_harness import digest, metrics
from run_harness import main as harness

from minigen import cli
from minigen.training import files
from minigen.training.checkpoint import CheckpointError, Checkpoints
from minigen.training.config import RunConfig
from minigen.training.run import load_run

HARNESS = Path(__file__).with_name("run_harness.py")
SMALL = {
    "tiny": [],
    "vae": ["--hidden", "16", "--channels", "4", "--latent", "3"],
    "vae-mlp": ["--hidden", "16", "--latent", "3"],
}
STEPS = 20  # more than an epoch of 14 batches, so that resuming needs the order of the data too
EVERY = ["--batch-size", "100", "--log-every", "3", "--evaluate-every", "7", "--checkpoint-every", "4"]


def train(out: Path, model: str, *options: str | int) -> None:
    assert cli.main(["train", model, "--out", str(out), "--quiet", *map(str, options)]) == 0


def stopped(out: Path, model: str, cuts: list[int], options: list[str], steps: int = STEPS) -> None:
    """A run that ends at each of the cuts, and is resumed."""
    train(out, model, *options, "--steps", cuts[0])
    for cut in (*cuts[1:], steps):
        train(out, model, "--resume", "--steps", cut)


@pytest.mark.parametrize("ema", ["0", "0.9"])
@pytest.mark.parametrize("model", SMALL)
def test_ten_steps_and_ten_more_are_twenty(model, ema, tmp_path, bare):
    options = [*SMALL[model], *EVERY, "--ema", ema]
    train(tmp_path / "whole", model, *options, "--steps", STEPS)
    expected = digest(tmp_path / "whole"), metrics(tmp_path / "whole")
    assert expected[0][0] == STEPS
    for cut in (1, 4, 10, 14, 19):  # the first and the last step; at a checkpoint; in the second epoch; at an evaluation
        stopped(tmp_path / f"cut{cut}", model, [cut], options)
        assert (digest(tmp_path / f"cut{cut}"), metrics(tmp_path / f"cut{cut}")) == expected, f"cut at step {cut}"


@pytest.mark.parametrize(("name", "value"), [("seed", 1), ("data", "kmnist"), ("log_every", 4), ("options.ema", 0.5)])
def test_a_config_that_was_edited_is_noticed(name, value, tmp_path, bare, capsys):
    train(tmp_path, "tiny", *EVERY, "--steps", 2)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    *inside, last = name.split(".")
    (config[inside[0]] if inside else config)[last] = value
    path.write_text(json.dumps(config))
    if name != "data":  # (another data set may not be there at all)
        assert cli.main(["train", "tiny", "--resume", "--out", str(tmp_path), "--steps", "4"]) == 2
        message = capsys.readouterr().err
        assert f"it was written with {name} = " in message
        assert f"config.json says {value}" in message
        assert "undo the change" in message
    with pytest.raises(CheckpointError, match=f"it was written with {name} = "):
        load_run(tmp_path)
    for field in ("steps", "threads"):  # these may change
        config[field] = 1
    assert RunConfig.from_json(config).fixed() == RunConfig.from_json(json.loads(path.read_text())).fixed()


@pytest.mark.slow
@pytest.mark.parametrize("ema", ["0", "0.999"])
@pytest.mark.parametrize("model", SMALL)
def test_fifty_cut_points(model, ema, tmp_path, bare):
    options = [*SMALL[model], *EVERY, "--ema", ema]
    train(tmp_path / "whole", model, *options, "--steps", 60)
    expected = digest(tmp_path / "whole"), metrics(tmp_path / "whole")
    rng = random.Random(f"{model} {ema}")
    for i in range(50):
        cuts = sorted(rng.sample(range(1, 60), rng.choice((1, 1, 2, 3))))
        stopped(tmp_path / str(i), model, cuts, options, 60)
        assert (digest(tmp_path / str(i)), metrics(tmp_path / str(i))) == expected, f"cut at {cuts}"


def test_the_digest_sees_every_part_of_a_state(tmp_path, bare):
    """Or the tests above would prove nothing."""
    train(tmp_path, "tiny", *EVERY, "--ema", "0.9", "--steps", 7)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    before = digest(tmp_path)
    seen = set()

    def flip(part, name):
        for key, value in part.items():
            if key == "config":  # which is compared, not taken over: test_a_config_that_was_edited_is_noticed
                continue
            if isinstance(value, dict):
                flip(value, f"{name}/{key}")
            elif key not in ("cpu_seconds", "algorithm"):
                part[key] = value.copy() if hasattr(value, "shape") else value + 1
                if hasattr(value, "shape"):
                    part[key].reshape(-1).view("u1")[0] ^= 1
                checkpoints.save(7, state, {})
                assert digest(tmp_path) != before, f"{name}/{key}"
                part[key] = value
                seen.add(f"{name}/{key}")

    state = checkpoints.latest().state
    flip(state, "")
    assert {"/model/mean", "/optimizers/adam/m", "/optimizers/adam/v", "/optimizers/adam/steps", "/ema/average"} <= seen
    assert {"/rng/block", "/order/permutation", "/order/position", "/order/rng/block", "/sums/loss", "/count"} <= seen


def test_metrics_that_a_killed_run_wrote_after_its_checkpoint_are_written_once(tmp_path, bare):
    train(tmp_path / "whole", "tiny", *EVERY, "--steps", STEPS)
    train(tmp_path / "killed", "tiny", *EVERY, "--steps", 11)
    path = tmp_path / "killed" / "metrics.jsonl"
    for step in (12, 15):
        files.append_line(path, {"step": step, "loss": 1.0, "cpu_seconds": 1.0, "samples_per_second": 1.0})
    with path.open("a") as file:
        file.write('{"step": 18, "lo')  # torn
    train(tmp_path / "killed", "tiny", "--resume", "--steps", STEPS)
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path, bare, capsys):
    train(tmp_path / "whole", "tiny", *EVERY, "--steps", STEPS)
    train(tmp_path / "damaged", "tiny", *EVERY, "--steps", 11)
    newest = Checkpoints(tmp_path / "damaged" / "checkpoints").path(11)
    newest.write_bytes(newest.read_bytes()[:-1])
    assert cli.main(["train", "tiny", "--resume", "--steps", str(STEPS), "--out", str(tmp_path / "damaged")]) == 0
    warning, resuming = capsys.readouterr().err.splitlines()[:2]
    assert warning.startswith(f"minigen: warning: {newest}: truncated")
    assert resuming == f"resuming {tmp_path / 'damaged'} at step 8"
    assert digest(tmp_path / "damaged") == digest(tmp_path / "whole")
    assert metrics(tmp_path / "damaged") == metrics(tmp_path / "whole")


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_again(tmp_path, bare, capsys):
    train(tmp_path / "whole", "tiny", *EVERY, "--steps", STEPS)
    (tmp_path / "early").mkdir()
    config = files.read_json(tmp_path / "whole" / "config.json")
    files.write_json(tmp_path / "early" / "config.json", config)  # all that there is at that moment
    assert cli.main(["train", "tiny", "--resume", "--out", str(tmp_path / "early")]) == 0
    assert "at step 0" in capsys.readouterr().err
    assert digest(tmp_path / "early") == digest(tmp_path / "whole")
    assert metrics(tmp_path / "early") == metrics(tmp_path / "whole")


def test_a_complete_run_can_be_resumed_and_stays_as_it_is(tmp_path, bare, capsys):
    train(tmp_path, "tiny", *EVERY, "--steps", STEPS)
    before = digest(tmp_path), metrics(tmp_path)
    assert cli.main(["train", "tiny", "--resume", "--out", str(tmp_path)]) == 0
    assert "it is complete: for more, give it a larger budget" in capsys.readouterr().err
    assert (digest(tmp_path), metrics(tmp_path)) == before


def test_a_resumed_run_may_have_another_budget_and_other_threads(tmp_path, bare):
    train(tmp_path, "tiny", "--steps", 5, "--threads", 1)
    train(tmp_path, "tiny", "--resume", "--epochs", 1)
    config = files.read_json(tmp_path / "config.json")
    assert (config["steps"], config["epochs"], config["threads"]) == (None, 1.0, 1)
    assert digest(tmp_path)[0] == 1437 // 100


def test_another_environment_is_told(tmp_path, bare, capsys):
    train(tmp_path, "tiny", "--steps", 5)
    environment = files.read_json(tmp_path / "environment.json")
    files.write_json(tmp_path / "environment.json", {**environment, "numpy": "1.0", "data_sha256": "0" * 64})
    assert cli.main(["train", "tiny", "--resume", "--steps", "6", "--out", str(tmp_path)]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert [line.split()[1] for line in warnings] == ["numpy", "data_sha256"]
    assert files.read_json(tmp_path / "environment.json")["numpy"] == environment["numpy"]


def digests_by_threads(folder: Path, counts: str, steps: str) -> dict[str, set[str]]:
    """model -> the different digests that training with these numbers of threads has given."""
    environment = {**os.environ, "NUMBA_NUM_THREADS": "8"}
    command = [sys.executable, str(HARNESS), "threads", str(folder), "vae,vae-mlp", counts, "--steps", steps]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {model: set(found.values()) for model, found in json.loads(done.stdout).items()}


def test_any_number_of_threads_gives_the_same_bits(tmp_path):
    found = digests_by_threads(tmp_path, "1,2,3", "4")
    assert {model: len(different) for model, different in found.items()} == {"vae": 1, "vae-mlp": 1}


@pytest.mark.slow
def test_two_hundred_steps_with_any_number_of_threads(tmp_path):
    found = digests_by_threads(tmp_path, "1,2,3,4,8", "200")
    assert {model: len(different) for model, different in found.items()} == {"vae": 1, "vae-mlp": 1}


def test_the_harness_refuses_what_it_does_not_know():
    with pytest.raises(SystemExit):
        harness("dance")
