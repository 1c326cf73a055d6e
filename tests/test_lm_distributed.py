"""Training on several devices and by several processes is that of one device; bad settings are refused."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from lm.errors import InputError
from lm.train.distributed import Processes

WORKER = pathlib.Path(__file__).parent / "training_worker.py"
STEPS = 12


def start(runs, devices, **more):
    environment = dict(os.environ, XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}", **more)
    command = [sys.executable, str(WORKER), json.dumps(runs)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(*workers):
    for worker in workers:
        _, errors = worker.communicate(timeout=240)
        assert worker.returncode == 0, errors


def curve(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    return np.asarray([(record["loss"], record["gradient_norm"]) for record in records])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with runs on one device and on four."""
    at = tmp_path_factory.mktemp("runs")
    one, crossed = {}, {"data": 2, "tensor": 2}
    runs = [
        {"folder": str(at / "one device"), "mesh": one},
        {"folder": str(at / "nudged"), "mesh": one, "nudge": True},
        {"folder": str(at / "one device, then four"), "mesh": one, "kill": 7},
        {"folder": str(at / "one device, then four"), "mesh": crossed},
        {"folder": str(at / "data 2 x tensor 2"), "mesh": crossed},
    ]
    finish(start(runs, 4))
    return at


def assert_curve_of_one_device(folder, way):
    """To what rounding does to a run: all starting weights off by one unit in the last place, in each of 12 updates."""
    wanted = curve(folder / "one device")
    tolerance = STEPS * np.abs(curve(folder / "nudged") - wanted).max()
    assert 0 < tolerance < 1e-3, "a run that is so sensitive shows nothing"
    assert np.abs(curve(folder / way) - wanted).max() < tolerance
    assert wanted[-1, 0] < 0.9 * wanted[0, 0]


@pytest.mark.parametrize("way", ["data 2 x tensor 2", "one device, then four"])
def test_four_devices_give_the_curve_of_one(way, folder):
    assert_curve_of_one_device(folder, way)


@pytest.mark.slow
def test_two_processes_and_every_mesh_give_the_curve_of_one_device(folder):
    with socket.create_server(("localhost", 0)) as free:
        coordinator = f"localhost:{free.getsockname()[1]}"
    shared = {"TOEDIT_COORDINATOR": coordinator, "TOEDIT_PROCESSES": "2"}
    both = {"data": 2, "fsdp": 2}
    handed_on = str(folder / "two processes, then one device")
    runs = [{"folder": str(folder / "two processes"), "mesh": both}, {"folder": handed_on, "mesh": both, "kill": 7}]
    finish(*(start(runs, 2, TOEDIT_PROCESS=str(number), **shared) for number in (0, 1)))
    assert (folder / "two processes, then one device" / "checkpoints" / "5").is_dir()
    runs = [{"folder": str(folder / "fsdp 4"), "mesh": {"fsdp": 4}}, {"folder": handed_on, "mesh": {}}]
    finish(start(runs, 4))
    for way in ("fsdp 4", "two processes", "two processes, then one device"):
        assert_curve_of_one_device(folder, way)


def command(out, *more):
    """Start `toedit train` as two processes of one device each; return exit codes and what they said."""
    with socket.create_server(("localhost", 0)) as free:
        coordinator = f"localhost:{free.getsockname()[1]}"
    given = ("--preset", "tiny", "--tokenizer", "train:300", "--batch", "4", "--context", "64", "--peak", "1")
    given += ("--data", "2", "--tokens", "2k", "--coordinator", coordinator, "--processes", "2", "--out", str(out))
    environment = dict(os.environ, XLA_FLAGS="--xla_force_host_platform_device_count=1")
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "paper.main", "train", *given, "--process", number, *more],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in ("0", "1")
    ]  # fmt: skip
    said = [worker.communicate(timeout=240) for worker in workers]
    return [worker.returncode for worker in workers], said


def test_every_process_says_what_process_0_found(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    codes, said = command(tmp_path / "run", "--source", str(tmp_path / "empty.txt"))
    assert codes == [2, 2], said
    for _, errors in said:
        assert "empty.txt" in errors
        assert "Traceback" not in errors


@pytest.mark.slow
def test_the_command_trains_by_two_processes(tmp_path):
    text = pathlib.Path(__file__).parent / "data" / "speech.txt"
    codes, said = command(tmp_path / "run", "--source", str(text))
    assert codes == [0, 0], said
    assert (tmp_path / "run" / "final" / "model.safetensors").is_file()
    assert "The model is in" in said[0][0]
    assert "The model is in" not in said[1][0]


@pytest.mark.parametrize(
    ("processes", "sentence"),
    [
        (Processes("localhost:1", 2, None), "need a coordinator"),
        (Processes(None, 2, 0), "need a coordinator"),
        (Processes("localhost:1", 2, 2), "no process 2 of 2"),
    ],
)
def test_incomplete_processes_are_refused(processes, sentence):
    with pytest.raises(InputError, match=sentence):
        processes.filled()


def test_one_process_needs_no_settings():
    assert Processes().filled() == Processes()
