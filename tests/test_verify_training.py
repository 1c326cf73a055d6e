"""Slow demonstrations, for `make verify`: training that is killed, stopped, or runs out of disk."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytestmark = pytest.mark.slow

KILLS = 20
STEPS = 200
COMMAND = (
    *("--preset", "tiny", "--source", "sotu", "--source", "novels:0.3", "--tokenizer", "train:512"),
    *("--tokens", str(STEPS * 32 * 128), "--batch", "32", "--context", "128", "--save-every", "5", "--peak", "1"),
)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Return a function that starts a training run; what is compiled once is found again by the next run."""
    compiled = tmp_path_factory.mktemp("compiled")
    environment = dict(
        os.environ,
        JAX_COMPILATION_CACHE_DIR=str(compiled),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
    )

    def begin(folder, *more, **options):
        command = [sys.executable, "-m", "paper.main", "train", *COMMAND, "--out", str(folder), *more]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=environment, **(quiet | options))

    return begin


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run = start(folder)
    _, errors = run.communicate()
    assert run.returncode == 0, errors
    return folder


def saved(folder):
    """Return the numbers of the checkpoints that are complete."""
    return sorted(int(path.name) for path in folder.glob("checkpoints/*") if path.name.isdecimal())


def assert_same(folder, undisturbed):
    for name in ("metrics.jsonl", "final/model.safetensors", "final/tokenizer.json", "final/config.json"):
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes(), name
    steps = [json.loads(line)["step"] for line in (folder / "speed.jsonl").read_text().splitlines()]
    assert steps == list(range(1, STEPS + 1))


def wait_for_checkpoint(run, folder, number=1):
    """Wait until a run has saved a checkpoint of at least that step; return how long that took in seconds."""
    begun = time.perf_counter()
    while not (found := saved(folder)) or found[-1] < number:
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.01)
    return time.perf_counter() - begun


def test_run_killed_at_random_moments_ends_in_the_same_bytes(start, undisturbed, tmp_path):
    folder, rng = tmp_path / "killed", np.random.default_rng(0)
    run = start(folder)
    time.sleep(rng.uniform(1, 4))  # into the preparation of the data
    run.kill()
    run.communicate()
    run = start(folder)
    wait_for_checkpoint(run, folder)
    run.kill()
    run.communicate()
    run = start(folder)
    first = wait_for_checkpoint(run, folder, saved(folder)[-1] + 1)  # nothing is prepared or compiled any more
    run.kill()
    run.communicate()
    kills, reached = 3, [saved(folder)[-1]]
    while kills < KILLS:
        run = start(folder)
        try:
            run.communicate(timeout=rng.uniform(0.2, first + 0.5))
        except subprocess.TimeoutExpired:
            run.kill()
            run.communicate()
            kills += 1
            reached.append(saved(folder)[-1])
        else:
            raise AssertionError(f"the run ended after {kills} kills; make it longer")
    print(f"{kills} kills; checkpoint after each: {reached}")
    assert len(set(reached)) > 3, "the kills must fall into the training, not only before it"
    run = start(folder)
    _, errors = run.communicate()
    assert run.returncode == 0, errors
    assert_same(folder, undisturbed)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_saves_and_the_same_command_goes_on(number, code, start, undisturbed, tmp_path):
    run = start(tmp_path / "stopped")
    wait_for_checkpoint(run, tmp_path / "stopped")
    run.send_signal(number)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == code
    assert "stopped after step" in errors.splitlines()[-1]
    assert f"step {saved(tmp_path / 'stopped')[-1]};" in errors.splitlines()[-1]
    run = start(tmp_path / "stopped")
    _, errors = run.communicate()
    assert run.returncode == 0, errors
    assert_same(tmp_path / "stopped", undisturbed)


def test_full_disk_is_one_sentence_and_the_last_checkpoint_stays(start, undisturbed, tmp_path):
    """Files that may not grow beyond 100 kB take the part of the disk: metrics still fit, arrays do not."""
    folder = tmp_path / "full"
    run = start(folder)
    wait_for_checkpoint(run, folder)
    resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 2
    good = saved(folder)[-1]
    last = errors.splitlines()[-1]
    assert last.startswith("toedit: cannot write a checkpoint to ")
    assert last.endswith(f"(File too large); free some space and start again: the last good one is of step {good}")
    run = start(folder)
    _, errors = run.communicate()
    assert run.returncode == 0, errors
    assert_same(folder, undisturbed)
