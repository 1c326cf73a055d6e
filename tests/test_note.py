import json
from fractions import Fraction
from itertools import pairwise
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2

from paper import note_build
from paper.commands.note import Note
from paper.errors import InputError
from paper.note_exact import accumulate, bracket, two_blocks


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    entry = {
        "id": "eq_26",
        "statement": "M = 0",
        "verdict": "fails",
        "owner": "paper",
        "numbers": 0.25,
        "correction": "M > 0",
    }
    data = {
        "claims": {"summary": "2 claims: 1 holds & 1 fails.", "tables": {"ledger": [entry]}},
        "figures": {"captions": {"curves": "Error e_n, 95 % bands"}},
        "curves": {
            "edit": {"error": [1.0, 1.23456], "se": [0.0, 0.0123]},
            "rows": [{"rule": "edit", "share": 0.5, "error": 2.0}, {"rule": "edit", "share": 0.25, "error": 3.0}],
            "repeats": 100000,
            "none": None,
        },
    }
    for name, content in data.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "result.json").write_text(json.dumps({"name": name, "config": {"T": 200}, "data": content}))
    (folder / "figures" / "curves.pdf").write_bytes(b"%PDF-1.4 stand-in")
    return folder


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "note"
    folder.mkdir()
    (folder / "main.tex").write_text(r"\input{numbers}\result{curves.repeats} % \result{gone.in.a.comment}")
    monkeypatch.setattr(note_build, "SOURCES", folder)
    return folder


def test_the_number_in_the_note_is_the_number_in_the_result_file(results: Path) -> None:
    text = r"\result{curves.edit.error.-1} \result[curves.edit.se.1]{curves.edit.error.1}\result{claims.summary}"
    defined = note_build.bind({"a.tex": text}, note_build.read_data(results))
    assert r"\csname result@curves.edit.error.-1@\endcsname{\ensuremath{1.235}}" in defined
    assert r"{\ensuremath{1.235\pm0.012}}" in defined
    assert r"2 claims: 1 holds \& 1 fails." in defined


def test_a_record_is_found_by_its_values(results: Path) -> None:
    data = note_build.read_data(results)
    assert note_build.lookup("curves.config.T", data) == 200
    assert note_build.lookup("curves.rows[rule=edit,share=0.25].error", data) == 3.0
    with pytest.raises(KeyError, match=r"share=0\.75"):
        note_build.lookup("curves.rows[share=0.75].error", data)


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (100000, None, "100{,}000"),
        (2.65294570, None, "2.653"),
        (0.00001234, None, r"1.23\cdot10^{-5}"),
        (7.456, 0.00054, r"7.45600\pm0.00054"),
        (7.456, 1e-17, "7.456"),
        (-0.5, None, "-0.5"),
        (0.0, None, "0"),
        ("5237/3003", None, "5237/3003"),
    ],
)
def test_digits(value: float | str, error: float | None, shown: str) -> None:
    assert note_build.number(value, error) == rf"\ensuremath{{{shown}}}"


def test_a_key_without_a_number_stops_the_build_and_is_named(results: Path, sources: Path, tmp_path: Path) -> None:
    (sources / "b.tex").write_text(r"\result{curves.edit.bias} \result{phase.a.0} \result{curves.none}")
    with pytest.raises(InputError, match=r"curves\.edit\.bias, curves\.none, phase\.a\.0.*make reproduce"):
        note_build.build(results, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_or_damaged_results_ask_for_reproduce(results: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run `make reproduce` first"):
        Note(tmp_path / "nowhere", tmp_path / "out").run()
    (results / "claims" / "result.json").write_text('{"data":')
    with pytest.raises(InputError, match="no result file"):
        Note(results, tmp_path / "out").run()
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("sources")
def test_without_latex_the_filled_sources_are_written(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(note_build.shutil, "which", lambda name: None)
    assert Note(results, tmp_path / "out").run() == 0
    assert "No LaTeX is installed" in capsys.readouterr().out
    written = {path.name: path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert set(written) == {"main.tex", "numbers.tex", "ledgertable.tex", "figurelist.tex", "curves.pdf"}
    assert "100{,}000" in written["numbers.tex"].read_text()
    assert r"\bound{curves.repeats}{}" in written["main.tex"].read_text()
    assert r"eq\_\allowbreak{}26" in written["ledgertable.tex"].read_text()
    assert r"\emph{Correction:} M \textgreater{} 0" in written["ledgertable.tex"].read_text()
    assert r"95 \% bands" in written["figurelist.tex"].read_text()


def test_escaping_leaves_no_active_character() -> None:
    assert note_build.escape("a_b & 5% of #1 {x} ~ ^ $") == (
        r"a\_\allowbreak{}b \& 5\% of \#1 \{x\} \textasciitilde{} \textasciicircum{} \$"
    )
    assert note_build.escape("σ² ≤ é") == r"$\sigma$$^2$ $\le$ é"
    assert note_build.escape("漢") == "[U+6F22]"


def test_sources_have_balanced_environments_and_known_references() -> None:
    text = "".join(note_build.COMMENT.sub("", path.read_text()) for path in sorted(note_build.SOURCES.glob("*.tex")))
    begun = note_build.re.findall(r"\\begin\{(\w+\*?)\}", text)
    ended = note_build.re.findall(r"\\end\{(\w+\*?)\}", text)
    assert sorted(begun) == sorted(ended)
    labels = note_build.re.findall(r"\\label\{([^}]*)\}", text)
    assert len(labels) == len(set(labels))
    cited = {key for group in note_build.re.findall(r"\\cite\{([^}]*)\}", text) for key in group.split(",")}
    assert cited <= set(note_build.re.findall(r"\\bibitem\{([^}]*)\}", text))
    assert len(note_build.re.findall(r"\\begin\{proof\}", text)) >= 15


def projection(rng: np.random.Generator, T: int, d: int) -> np.ndarray:
    basis = np.linalg.qr(rng.standard_normal((T, d)))[0]
    return basis @ basis.T


def fixed_schedule(rng: np.random.Generator, d: int, masks: np.ndarray, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Error in units of v by the covariance recursion, mean and standard error over projections."""
    T = masks.shape[1]
    errors = np.ones((repeats, len(masks) + 1))
    for repeat in range(repeats):
        H = projection(rng, T, d)
        C = np.eye(T)
        for n, mask in enumerate(masks):
            step = np.eye(T) - mask[:, None] * (np.eye(T) - H)
            C = step @ C @ step.T + np.diag(mask)
            errors[repeat, n + 1] = np.trace(H @ C) / d
    return errors.mean(0), errors.std(0, ddof=1) / sqrt(repeats)


def blocks(T: int, sizes: tuple[int, ...]) -> np.ndarray:
    ends = np.cumsum((0, *sizes))
    return np.array([(np.arange(T) >= a) & (np.arange(T) < b) for a, b in pairwise(ends)], float)


def test_two_blocks_known_values() -> None:
    assert two_blocks(12, 10, 4, 4) == Fraction(5237, 3003)
    # by hand in the note: h ~ Uniform(0, 1), 2 + 3/6 - 1/30
    assert two_blocks(4, 1, 2, 2) == Fraction(37, 15)
    # an empty second block leaves the one-edit law 1 + a + f m(T-m)/(T(T-1))
    assert two_blocks(20, 7, 6, 0) == 1 + Fraction(6, 20) + Fraction(13, 22) * Fraction(6 * 14, 20 * 19)


def test_two_complementary_blocks_always_exceed_the_paper_s_constant() -> None:
    for T in range(4, 30):
        for d in range(1, T - 1):
            assert all(two_blocks(T, d, m, T - m) > 2 for m in range(1, T))


def test_two_blocks_against_the_covariance_recursion() -> None:
    rng = np.random.default_rng(20261122)
    mean, error = fixed_schedule(rng, 5, blocks(12, (3, 5)), 4000)
    # 4 standard errors; the paper's 1 + 8/12 is far outside
    assert abs(mean[2] - float(two_blocks(12, 5, 3, 5))) < 4 * error[2]
    assert abs(mean[2] - (1 + 8 / 12)) > 40 * error[2]


@pytest.mark.parametrize(
    ("T", "d", "counts"), [(12, 3, [6] * 20), (30, 20, [10] * 15), (8, 5, [2] * 20), (60, 2, [30] * 20)]
)
def test_bracket_for_random_edits(T: int, d: int, counts: list[int]) -> None:
    rng = np.random.default_rng(7)
    repeats = 300
    last = np.empty(repeats)
    for repeat in range(repeats):
        H = projection(rng, T, d)
        h, B, D = np.diag(H), (np.eye(T) - H) ** 2, np.ones(T)
        last[repeat] = 1.0
        for m in counts:
            a, c = m / T, m * (T - m) / (T * (T - 1))
            last[repeat] += a + c * h @ B @ D / d
            D = (1 - a - c) * D + c * B @ D + a
    lower, upper = (float(bound) for bound in bracket(T, d, counts))
    slack = 4 * last.std(ddof=1) / sqrt(repeats)
    assert lower - slack <= last.mean() <= upper + slack
    assert upper - lower <= (d + 2) / (T + 2) * sum(m * (T - m) / (T * (T - 1)) for m in counts)
    # the paper's 1 + sum of the shares lies outside the bracket
    assert lower - slack > 1 + sum(counts) / T


@pytest.mark.parametrize(
    ("T", "d", "m", "repeats"), [(12, 10, 1, 60), (12, 1, 1, 400), (40, 2, 4, 100), (60, 10, 10, 60)]
)
def test_bounds_for_disjoint_blocks(T: int, d: int, m: int, repeats: int) -> None:
    rng = np.random.default_rng(11)
    mean, error = fixed_schedule(rng, d, blocks(T, (m,) * (T // m)), repeats)
    share = np.arange(len(mean)) * m / T
    slack = 4 * error + 1e-12
    assert (mean >= 1 + share - slack).all()
    assert (mean <= 2 * (1 + m / T) ** np.arange(len(mean)) - 1 + slack).all()
    assert (np.diff(mean) <= 6 * m / T + 8 * error[1:]).all()
    # the paper's bound under its own assumption
    assert mean[-1] - slack[-1] > 2


def test_covariance_algebra_of_disjoint_blocks() -> None:
    rng = np.random.default_rng(13)
    for _ in range(200):
        d, n, T = int(rng.integers(1, 5)), int(rng.integers(1, 7)), int(rng.integers(6, 30))
        basis = np.linalg.qr(rng.standard_normal((T, d)))[0]
        block = rng.integers(0, n + 1, T)
        grams = [basis[block == i].T @ basis[block == i] for i in range(n)]
        one = np.eye(d)
        covariance, product, later, waste = one, one, one, np.zeros((d, d))
        for W in grams:
            # b_{n+1} = (I + W) b_n + eta - zeta with Cov(b_n, zeta) = P W
            mixed = (one + W) @ product @ W
            covariance = (one + W) @ covariance @ (one + W) + 2 * W - mixed - mixed.T
            product = (one + W) @ product
        for W in reversed(grams):
            waste = waste + later @ W @ W @ later.T
            later = later @ (one + W)
        # entries below 100 and a dozen products of 4 x 4 matrices: 1e-11 is a thousand roundings
        np.testing.assert_allclose(covariance, product + product.T - one - waste, atol=1e-11)
        added, total = covariance - one, np.sum(grams, axis=0)
        assert np.linalg.eigvalsh(added - waste)[0] > -1e-11
        assert np.linalg.eigvalsh(4 * total - added)[0] > -1e-11


def test_rows_edited_for_ever_converge_to_the_stated_limit() -> None:
    T, d, m, generations = 40, 3, 20, 60
    rng = np.random.default_rng(3)
    differences, values, rates = [], [], []
    for _ in range(50):
        basis = np.linalg.qr(rng.standard_normal((T, d)))[0]
        H, kept = basis @ basis.T, basis[m:].T @ basis[m:]
        edited = np.eye(d) - kept
        stated = np.trace(np.linalg.inv(kept) + edited @ np.linalg.inv(kept) @ np.linalg.inv(np.eye(d) + edited)) / d
        mask = (np.arange(T) < m).astype(float)
        step, C, path = np.eye(T) - mask[:, None] * (np.eye(T) - H), np.eye(T), [1.0]
        for _ in range(generations):
            C = step @ C @ step.T + np.diag(mask)
            path.append(float(np.trace(H @ C)) / d)
        assert (np.diff(path) > -1e-9).all()
        differences.append(path[-1] - stated)
        values.append(stated)
        # largest eigenvalue w of the edited block: the distance to the limit is at most 2 w^61 / (1 - w)
        w = np.linalg.eigvalsh(edited)[-1]
        rates.append(2 * w ** (generations + 1) / (1 - w))
    assert (np.abs(differences) < np.array(rates) + 1e-9).all()
    assert np.mean(values) < 2 * (T - d - 1) / (T - m - d - 1) - 1


def test_half_of_the_paper_s_bound_37_suffices() -> None:
    ratios = []
    for T in range(5, 120):
        for d in range(1, T - 3):
            trace = d * (T - 1) / ((T - d) * (T - d - 1) * (T - d - 3))
            m = np.arange(1, T + 1)
            increment = d / (T - d - 1) * (m / T + (T - d) / (T + 2) * m * (T - m) / (T * (T - 1)))
            ratios.append((increment / np.sqrt(trace * m)).max())
    assert 0.49 < max(ratios) <= 0.5


def test_accumulation_on_fresh_designs() -> None:
    T, d, generations, repeats = 16, 6, 4, 4000
    rng = np.random.default_rng(5)
    errors = np.empty((repeats, generations))
    for repeat in range(repeats):
        gram, moment, fit = np.zeros((d, d)), np.zeros(d), np.zeros(d)
        for n in range(generations):
            X = rng.standard_normal((T, d))
            gram, moment = gram + X.T @ X, moment + X.T @ (X @ fit + rng.standard_normal(T))
            fit = np.linalg.solve(gram, moment)
            errors[repeat, n] = fit @ fit
    unit = d / (T - d - 1)
    same, fresh = accumulate(T, d, generations)
    mean, error = errors[:, -1].mean() / unit, errors[:, -1].std(ddof=1) / sqrt(repeats) / unit
    assert abs(mean - float(fresh)) < 4 * error
    # the standard error is small enough to reject the law of the same design
    assert float(same) - mean > 4 * error


def test_sizes_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="change them"):
        two_blocks(5, 4, 1, 1)
    with pytest.raises(InputError, match="change them"):
        bracket(10, 3, [11])


def test_confident_editing_only_adds_to_the_first_fit() -> None:
    T, d, tau, repeats = 20, 5, 0.4, 6000
    rng = np.random.default_rng(17)
    mixed, added = np.empty(repeats), np.empty(repeats)
    for repeat in range(repeats):
        H = projection(rng, T, d)
        labels = rng.standard_normal(T)
        first = H @ labels
        for _ in range(3):
            fit = H @ labels
            edited = np.abs(labels - fit) <= tau
            labels = np.where(edited, fit + rng.standard_normal(T), labels)
        drift = H @ labels - first
        mixed[repeat], added[repeat] = first @ drift, drift @ drift
    assert abs(mixed.mean()) < 4 * mixed.std(ddof=1) / sqrt(repeats)
    # a mixed term of a fifth of the added error would have been seen
    assert 0.2 * added.mean() > 4 * mixed.std(ddof=1) / sqrt(repeats)


def test_selection_by_fitted_values_breaks_the_fit_test_form() -> None:
    # d = 1 and a large parameter: all rows are edited when the design is small, as in the note's example
    T, level, parameter, repeats = 10, 8.0, 1e4, 100_000
    rng = np.random.default_rng(19)
    X = rng.standard_normal((repeats, T))
    size = (X**2).sum(1)
    first, second = (np.einsum("rt,rt->r", X, rng.standard_normal((repeats, T))) for _ in range(2))
    edited = (parameter + first / size) ** 2 * size <= level * parameter**2
    noise = first + edited * second  # X'u after the edit
    literal, form = noise**2 / size**2 * (T - 2), noise**2 / size
    for values, expected, wrong in ((literal, chi2.cdf(level, T - 2), 0.0), (form, chi2.cdf(level, T), 0.0)):
        error = values.std(ddof=1) / sqrt(repeats)
        assert abs(values.mean() - 1 - expected) < 4 * error
        assert abs(values.mean() - 1 - wrong) > 4 * error
    difference = literal - form
    assert difference.mean() > 4 * difference.std(ddof=1) / sqrt(repeats)
