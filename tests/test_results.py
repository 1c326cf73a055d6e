"""Result files: written whole or not at all, with their provenance."""

import csv
import json

import numpy as np
import pytest

from paper.errors import InputError
from paper.results import digest, plain, record, write_bytes, write_record


def test_record_holds_configuration_seed_versions_machine_and_time(tmp_path):
    result = record("demo", {"seed": 7, "T": 20}, {"tables": {"rows": [{"a": 1, "b": 2.5}, {"a": 3, "c": "x"}]}}, 1.25)
    write_record(tmp_path / "result.json", result)
    stored = json.loads((tmp_path / "result.json").read_text())
    assert stored["config"] == {"seed": 7, "T": 20}
    assert stored["seed"] == 7
    assert {"python", "jax", "numpy"} <= stored["versions"].keys()
    assert stored["machine"]["cores"] >= 1
    assert stored["wall_seconds"] == 1.25
    with (tmp_path / "rows.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"a": "1", "b": "2.5", "c": ""}, {"a": "3", "b": "", "c": "x"}]


def test_plain_keeps_numbers_and_refuses_nan():
    value = {"x": np.arange(3), "y": np.float64(0.1), "z": (True, None)}
    assert plain(value) == {"x": [0, 1, 2], "y": 0.1, "z": [True, None]}
    with pytest.raises(ValueError, match="NaN or infinity"):
        plain([1.0, float("nan")])
    with pytest.raises(TypeError, match="set"):
        plain({"x": {1}})


def test_digest_ignores_order_of_keys_and_sees_values():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_unwritable_folder_is_one_sentence_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose a folder"):
        write_bytes(tmp_path / "file" / "result.json", b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
