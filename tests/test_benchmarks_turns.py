"""The arithmetic of the benchmarks: who runs when, and what the ratios are of."""

import math
import sys

import numpy as np
import pytest

from benchmarks import _turns


def runs(*seconds: float) -> list[dict[str, float]]:
    """Runs of a way, the extra first one included."""
    return [{"seconds": one, "gflops": 100.0 / one} for one in seconds]


def test_every_way_runs_once_a_round_in_alternating_order(capsys):
    order = []

    def way(name):
        def run():
            order.append(name)
            return {"seconds": 1.0 * len(order)}

        return run

    found = _turns.in_turn({"a": way("a"), "b": way("b")}, 2)
    assert order == ["a", "b", "a", "b", "b", "a"]
    assert [run["seconds"] for run in found["a"]] == [1.0, 3.0, 6.0]
    np.testing.assert_array_equal(_turns.seconds(found["b"]), [4.0, 5.0])
    assert "round 2 of 2, a: 6.0 s" in capsys.readouterr().out


def test_a_ratio_is_of_runs_of_one_round():
    ours, theirs = runs(9, 1, 2, 40), runs(1, 2, 3, 20)
    assert _turns.times_faster(ours, theirs) == (1.5, "1.50 times (median of 3 rounds; 0.50 to 2.00)")
    # A slow minute of both changes nothing.
    assert _turns.times_faster(runs(9, 1, 10), runs(1, 2, 20))[0] == 2.0
    # Logarithms log 2 and log 8: mean log 4, standard error (log 8 - log 2) / 2 = log 2.
    assert _turns.mean_times_faster(runs(9, 1, 1), runs(1, 2, 8)) == pytest.approx((4, 4 * math.log(2)))


def test_a_share_compares_with_the_rate_of_the_same_round():
    ours, rates = runs(9, 2, 4, 4), runs(1, 1, 2, 4)
    median, words = _turns.share(ours, 10e9, rates)
    assert median == np.median([5 / 100, 2.5 / 50, 2.5 / 25]) == 0.05
    assert words == "5 % of 50 GFLOP/s"


def test_the_best_way_has_the_smallest_median_without_the_first_run():
    found = {"ours, a": runs(1, 5, 5, 5), "ours, b": runs(90, 4, 4, 90), "theirs": runs(1, 1, 1, 1)}
    assert _turns.best(found, "ours") == "ours, b"
    assert _turns.best(found, "nobody") is None


def test_a_served_process_runs_what_it_is_asked_for():
    code = (
        "from benchmarks._serve import serve; count = [0]\n"
        "def run():\n    count[0] += 1\n    return {'seconds': count[0]}\n"
        "serve({'one, way': run}, {'versions': {'it': '1'}})"
    )
    with _turns.served([sys.executable, "-c", code]) as peer:
        assert peer["versions"] == {"it": "1"}
        assert [peer["ways"]["one, way"]()["seconds"] for _ in range(3)] == [1, 2, 3]


def test_the_time_that_the_host_takes_is_a_share():
    machine = _turns.Machine().described("numpy", torch="2")
    assert 0 <= machine["taken"] <= 1
    assert machine["versions"]["numpy"] == np.__version__
    assert machine["versions"]["torch"] == "2"
    words = _turns.sentence(machine | {"taken": 0.125, "load": 0.5})
    assert "load 0.5 at the end, 12 % of their time taken by the host for others; python" in words


def test_a_process_that_ends_says_so():
    with (
        pytest.raises(RuntimeError, match="-c has ended"),
        _turns.served([sys.executable, "-c", "raise SystemExit(1)"]),
    ):
        pass


def test_results_lie_by_machine_and_version_of_jax():
    assert _turns.place("Intel(R) Xeon(R) Processor", "0.12.0.1") == "intel-xeon-jax-0.12"
    assert _turns.place("NVIDIA H200", "0.11.2") == "nvidia-h200-jax-0.11"
