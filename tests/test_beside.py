"""The paper's numbers beside ours: values from the paper's tables by hand, verdicts from made-up results."""

import math
import statistics

import pytest
from made_up_experiments import HUMAN, committed, mixture_change

from lm.experiments.designs import EXPERIMENTS
from paper.beside import beside, paper_changes
from paper.contrasts import Contrast, UntestableError

WORDS = {"same direction", "opposite", "not distinguishable at this scale", "untestable"}


def rows(**chosen):
    return {(row["paper"], row["statement"]): row for row in beside(committed(**chosen))}


def find(found, *words):
    (row,) = [row for key, row in found.items() if all(word in " ".join(key) for word in words)]
    return row


def test_paper_values_are_log_ratios_of_its_perplexities():
    # Tables 13 and 17 after 5 epochs: Wikitext-103, RedPajama, Falcon-RefinedWeb, c4-en, mc4-en.
    human, pure = (34.55, 32.34, 44.90, 37.56, 49.74), (128.05, 96.03, 122.69, 106.55, 144.99)
    wanted = statistics.fmean(math.log(b / a) for a, b in zip(human, pure, strict=True))
    row = find(rows(), "5 epochs", "at 100 %")
    assert row["paper_value"] == pytest.approx(wanted, abs=1e-12)
    assert len(paper_changes("1", "", 25)) == 22  # the two printed averages are no domains
    assert len(paper_changes("14", "epoch 1", 25)) == 7


def test_ours_is_the_paired_mean_with_both_errors():
    found = rows()
    row = find(found, "table 14", "at 100 %")
    # Arm 4 of the mixture: three seeds at .4 + 5 (0, .001, -.001); t_{2, .975} = 4.302653.
    assert row["ours"] == pytest.approx(0.4)
    assert row["half_width"] == pytest.approx(4.302653 * 0.005 / math.sqrt(3), rel=1e-6)
    assert (row["works_se"], row["seeds"], row["made"]) == (0.001, 3, "committed 0123456789ab")
    assert row["verdict"] == "same direction"
    assert find(found, "1 epoch", "at 100 %")["ours"] == pytest.approx(0.2)  # half-way through the training


def test_opposite_direction_small_effects_and_tiny_edits_are_called_so():
    found = rows(mixture=lambda about, domain: -mixture_change(about, domain))
    assert find(found, "table 1,", "at 100 %")["verdict"] == "opposite"
    assert find(found, "training loss at 100 % written")["verdict"] == "same direction"
    one = rows(seeds=1)
    assert {row["verdict"] for row in one.values()} == {"not distinguishable at this scale", "untestable"}
    # .001 is within the interval of three seeds, whose values differ by .003.
    flat = rows(edited=lambda about, domain: 0.001)
    assert find(flat, "settings: released")["verdict"] == "not distinguishable at this scale"
    assert find(found, "settings: released")["verdict"] == "same direction"
    assert find(found, "settings: paper", "0.040%", "32.75 and 33.11")["verdict"] == "untestable"
    assert find(found, "effective rate 0.03 %")["verdict"] == "untestable"


def test_confident_minus_random_is_paired_by_seed():
    row = find(rows(), "effective rate 20 %", "harms less")
    # .2 - .1; arms 7 and 8: the difference of seeds is (0, -.001, .001).
    assert row["ours"] == pytest.approx(0.1)
    assert row["half_width"] == pytest.approx(4.302653 * 0.001 / math.sqrt(3), rel=1e-6)
    assert row["works_se"] == pytest.approx(0.001 * math.sqrt(2))
    assert row["verdict"] == "opposite"


def test_domains_are_ranked_beside_the_paper_s():
    found = [row for row in beside(committed()) if "harmed domain" in row["statement"]]
    ours = [row["statement"].split(": ")[1].split(" (")[0] for row in found]
    assert ours == ["speech", "brown", "verse", "maths", "law", "news"]
    assert set(ours) <= set(HUMAN)
    theirs = [row["paper_value"] for row in found]
    assert theirs[0] == pytest.approx(math.log(129.75 / 30.73))
    assert theirs[:3] == sorted(theirs[:3], reverse=True)
    assert theirs[3:] == sorted(theirs[3:])
    assert theirs[2] > theirs[5]


def test_all_experiments_are_there_in_the_agreed_words():
    found = beside(committed())
    assert {row["verdict"] for row in found} <= WORDS
    assert find(rows(), "edit levels off")["verdict"] == "same direction"
    assert find(rows(), "accumulate ends below replace")["verdict"] == "same direction"
    # At another size not all experiments may have been made.
    some = list(EXPERIMENTS)[:-1]
    found = beside({name: committed()[name] for name in some})
    assert list(dict.fromkeys(row["experiment"] for row in found)) == some


def test_a_difference_needs_a_common_seed():
    with pytest.raises(UntestableError, match="no seed"):
        _ = Contrast({0: 1.0}) - Contrast({1: 1.0})
    both = Contrast({0: 1.0, 1: 2.0}, 0.3) - Contrast({1: 0.5, 2: 0.0}, 0.4)
    assert both.values == {1: 1.5}
    assert both.works_se == pytest.approx(0.5)
    # Beyond the interval of .0127 and not beyond twice the error over works.
    assert Contrast({0: 0.099, 1: 0.101}, 0.06).direction == "not distinguishable"
    assert Contrast({0: 0.099, 1: 0.101}, 0.04).direction == "rises"
