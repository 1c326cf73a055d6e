r"""Builds the LaTeX note from result files, and runs LaTeX where there is one.

In the sources `\result{step.path.to.number}` stands for data["path"]["to"]["number"] of the file
results/step/result.json (list positions are integers, -1 is the last; `rows[name=value,other=value]` is
the first record of a list that has these values; `step.config.name` is a parameter of the step), and
`\result[key]{key}` adds the standard error that the first key names. "exact" is no step: its numbers are
those of `paper.note_exact`.
"""

import json
import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paper import note_exact
from paper.errors import InputError
from paper.results import ROOT, write_bytes, write_text

LEDGERS = ("claims", "lm_claims")  # steps whose tables make up the ledger
SOURCES = ROOT / "paper" / "note"
KEY = re.compile(r"\\result(?:\[((?:[^\[\]]|\[[^\]]*\])*)\])?\{([^}#]*)\}")
PART = re.compile(r"\[[^\]]*\]|[^.\[\]]+")
COMMENT = re.compile(r"(?<!\\)%.*")
DIGITS = 4
ROUNDING = 1e-12  # a standard error below this part of the value is rounding: the value is exact
# Ledger columns that are printed, with the share of the text width that each gets.
COLUMNS = (("id", 0.17), ("statement", 0.43), ("verdict", 0.13), ("numbers", 0.27))
MATHS = {
    "²": "^2", "³": "^3", "¹": "^1", "⁻": "^{-}", "⁺": "^{+}", "ⁿ": "^n", "₀": "_0", "₁": "_1", "₂": "_2",
    "₃": "_3", "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "δ": r"\delta", "ε": r"\varepsilon",
    "η": r"\eta", "κ": r"\kappa", "λ": r"\lambda", "μ": r"\mu", "ν": r"\nu", "ξ": r"\xi", "π": r"\pi",
    "ρ": r"\rho", "σ": r"\sigma", "τ": r"\tau", "φ": r"\phi", "χ": r"\chi", "ψ": r"\psi", "ω": r"\omega",
    "Σ": r"\Sigma", "Δ": r"\Delta", "Γ": r"\Gamma", "Φ": r"\Phi", "Ω": r"\Omega", "≤": r"\le",
    "≥": r"\ge", "≠": r"\ne", "≈": r"\approx", "→": r"\to", "∞": r"\infty", "×": r"\times", "·": r"\cdot",
    "±": r"\pm", "−": "-", "√": r"\surd", "∑": r"\sum", "∏": r"\prod", "∈": r"\in", "∉": r"\notin",
    "⊂": r"\subset", "∼": r"\sim", "≡": r"\equiv", "∝": r"\propto", "½": r"\tfrac12", "′": "'",
    "≪": r"\ll", "≫": r"\gg", "∫": r"\int", "∂": r"\partial", "∇": r"\nabla", "‖": r"\|", "∘": r"\circ",
    "⊥": r"\perp",
}  # fmt: skip
TEXT = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%",
    "_": r"\_\allowbreak{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "–": "--", "—": "---", "‘": "`", "’": "'",
    "“": "``", "”": "''", "…": r"\dots{}", "\u00a0": "~", "ŵ": r"$\hat w$", "°": r"\textdegree{}",
    "/": r"/\allowbreak{}", ",": r",\allowbreak{}",
}  # fmt: skip
NO_LATEX = (
    "No LaTeX is installed, so the filled sources were written to {folder} without a PDF; install one "
    "(Debian or Ubuntu: apt-get install texlive-latex-recommended texlive-fonts-recommended lmodern; "
    "otherwise: tectonic) and repeat the command."
)


def escape(text: str) -> str:
    """Return plain text as LaTeX; a character that the note's fonts lack becomes its Unicode number."""

    def one(character: str) -> str:
        if character in TEXT:
            return TEXT[character]
        if character in MATHS:
            return f"${MATHS[character]}$"
        code = ord(character)
        # Latin-1 letters are in the T1 encoding
        return character if code < 128 or 0xC0 <= code <= 0xFF else f"[U+{code:04X}]"

    return "".join(one(character) for character in text)


def _power_of_ten(text: str) -> str:
    mantissa, _, exponent = text.partition("e")
    return f"{mantissa}\\cdot10^{{{int(exponent)}}}" if exponent else mantissa


def number(value: Any, error: float | None = None) -> str:
    """Return a number as LaTeX that is valid in text and in formulas.

    Args:
        value: a number, text or truth value from a result file.
        error: its standard error; it then decides the digits (two digits of the error) and is shown.

    Raises:
        TypeError: nothing that can be printed as one number.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return escape(value) if not re.fullmatch(r"-?\d+(/\d+)?", value) else rf"\ensuremath{{{value}}}"
    if not isinstance(value, int | float):
        raise TypeError(f"{type(value).__name__} is no number")
    if error and abs(error) > ROUNDING * abs(value):
        places = max(0, 1 - math.floor(math.log10(abs(error))))
        return rf"\ensuremath{{{value:.{places}f}\pm{error:.{places}f}}}"
    if isinstance(value, int):
        return rf"\ensuremath{{{value:,}}}".replace(",", "{,}")
    if value and not 1e-3 <= abs(value) < 1e5:
        return rf"\ensuremath{{{_power_of_ten(f'{value:.{DIGITS - 2}e}')}}}"
    return rf"\ensuremath{{{float(f'{value:.{DIGITS}g}'):g}}}"


def lookup(key: str, data: Mapping[str, Any]) -> Any:
    """Return what a dotted key names.

    Raises:
        KeyError: no such entry, or the entry is null.
    """
    value: Any = data
    for part in PART.findall(key):
        try:
            if part.startswith("["):
                value = _record(value, part[1:-1])
            else:
                value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise KeyError(key) from error
    if value is None or isinstance(value, Mapping | list):
        raise KeyError(key)
    return value


def _record(rows: Any, wanted: str) -> Any:
    """Return the first record with the wanted values, compared as text: "rule=edit,share=0.5"."""
    pairs = [pair.split("=", 1) for pair in wanted.split(",")]
    for row in rows:
        if all(str(row[name]) == value for name, value in pairs):
            return row
    raise KeyError(wanted)


def read_data(results: Path) -> dict[str, Any]:
    """Return the data of every result file by step name, and the exact numbers.

    Raises:
        InputError: there are no results with a ledger and figures, or a file is damaged.
    """
    data: dict[str, Any] = {"exact": note_exact.numbers()}
    for path in sorted(results.glob("*/result.json")):
        try:
            result = json.loads(path.read_text())
            data[path.parent.name] = {"config": result["config"], **result["data"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is no result file; remove it and run `make reproduce` again") from error
    missing = [name for name in ("claims", "figures") if name not in data]
    if missing:
        raise InputError(f"{results} has no result of the step {missing[0]!r}; run `make reproduce` first")
    return data


def bind(sources: Mapping[str, str], data: Mapping[str, Any]) -> str:
    r"""Return numbers.tex: one definition for every `\result` in the sources.

    Raises:
        InputError: keys without a number, all of them named.
    """
    bare = [COMMENT.sub("", text) for text in sources.values()]
    keys = {match.groups(default="") for text in bare for match in KEY.finditer(text)}
    lines, unbound = [], []
    for error_key, key in sorted(keys):
        try:
            value = lookup(key, data)
            error = float(lookup(error_key, data)) if error_key else None
            shown = number(value, error)
        except (KeyError, TypeError, ValueError) as error:
            unbound.append(str(error.args[0]) if isinstance(error, KeyError) else key)
            continue
        lines.append(rf"\expandafter\def\csname result@{key}@{error_key}\endcsname{{{shown}}}")
    if unbound:
        names = ", ".join(dict.fromkeys(unbound))
        raise InputError(f"no result file has the numbers {names} of the note; run `make reproduce` first")
    return "\n".join(lines) + "\n"


def ledger_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the ledger as a long table."""
    present = [(name, width) for name, width in COLUMNS if any(row.get(name) for row in rows)]
    total = sum(width for _, width in present)
    columns = "".join(
        rf">{{\raggedright\arraybackslash\hspace{{0pt}}}}p{{\dimexpr {width / total:.4f}\linewidth-2\tabcolsep\relax}}"
        for _, width in present
    )
    head = " & ".join(rf"\textbf{{{escape(name)}}}" for name, _ in present) + r" \\"
    lines = [
        rf"\begin{{longtable}}{{@{{}}{columns}@{{}}}}",
        rf"\toprule {head} \midrule \endhead",
        r"\bottomrule \endfoot",
    ]
    owner = None
    for row in rows:
        if row.get("owner") != owner:
            owner = row["owner"]
            title = escape("Statements of the paper" if owner == "paper" else f"Statements of {owner}")
            lines.append(rf"\multicolumn{{{len(present)}}}{{@{{}}l}}{{\textit{{{title}}}}} \\ \addlinespace[3pt]")
        cells = [_cell(row, name) for name, _ in present]
        lines.append(" & ".join(cells) + r" \\ \addlinespace[3pt]")
    return "\n".join([*lines, r"\end{longtable}", ""])


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if name in ("id", "statement"):
        return _id(row) if name == "id" else _statement(row)
    if value is None:
        return ""
    return escape(value) if isinstance(value, str) else number(value)


def _id(row: Mapping[str, Any]) -> str:
    """Return the name of an entry, and its place where the name does not tell it."""
    where = str(row.get("where") or "")
    told = not where or where == row.get("owner") or where.startswith(("eq.", "Algorithm"))
    return escape(str(row["id"])) + ("" if told else rf" \par {escape(where)}")


def _statement(row: Mapping[str, Any]) -> str:
    """Return the statement, then what it needs or what is true instead."""
    extras = [name for name in ("condition", "counterexample", "correction") if row.get(name)]
    shown = [rf"\emph{{{name.capitalize()}:}} {escape(str(row[name]))}" for name in extras]
    return r" \par ".join([escape(str(row["statement"])), *shown])


def figure_list(captions: Mapping[str, str]) -> str:
    """Return one figure environment for every drawn figure, in the order of the figures step."""
    return "\n".join(
        "\\begin{figure}[htbp]\n\\centering\n"
        f"\\drawing{{{name}.pdf}}\n"
        f"\\caption{{{escape(caption)}}}\\label{{fig:{name}}}\n\\end{{figure}}\n"
        for name, caption in captions.items()
    )


def fill(results: Path, output: Path) -> None:
    """Write everything that LaTeX needs to `output`: sources, numbers.tex, the ledger and the figures.

    Args:
        results: folder of the result files.
        output: folder to write to.

    Raises:
        InputError: results are missing, or a key of the note has no number.
    """
    data = read_data(results)
    sources = {path.name: path.read_text() for path in sorted(SOURCES.glob("*.tex"))}
    ledger = [row for step in LEDGERS if step in data for row in data[step]["tables"]["ledger"]]
    made = {
        "numbers.tex": bind(sources, data),
        "ledgertable.tex": ledger_table(ledger),
        "figurelist.tex": figure_list(data["figures"]["captions"]),
    }
    pictures = {f"{name}.pdf": results / "figures" / f"{name}.pdf" for name in data["figures"]["captions"]}
    for path in pictures.values():
        if not path.is_file():
            raise InputError(f"the figure {path} is missing; run `make reproduce` again")
    for name, text in sources.items():
        write_text(output / name, KEY.sub(lambda match: rf"\bound{{{match[2]}}}{{{match[1] or ''}}}", text))
    for name, text in made.items():
        write_text(output / name, text)
    for name, path in pictures.items():
        write_bytes(output / "figures" / name, path.read_bytes())


def latex_commands() -> list[list[str]] | None:
    """Return the commands that turn main.tex into main.pdf with the LaTeX at hand, None without one."""
    options = ["-interaction=nonstopmode", "-halt-on-error"]
    if shutil.which("latexmk"):
        return [["latexmk", "-pdf", *options, "main.tex"]]
    if shutil.which("pdflatex"):
        return [["pdflatex", *options, "main.tex"]] * 3
    if shutil.which("tectonic"):
        return [["tectonic", "--keep-logs", "main.tex"]]
    return None


def build(results: Path, output: Path) -> str:
    """Fill the note and typeset it.

    Args:
        results: folder of the result files.
        output: folder for the sources and note.pdf.

    Returns:
        One sentence that says what was written.

    Raises:
        InputError: results are missing, a number is missing, or LaTeX fails.
    """
    fill(results, output)
    commands = latex_commands()
    if commands is None:
        return NO_LATEX.format(folder=output)
    # Typeset elsewhere: a killed run leaves no half-written PDF and no auxiliary files.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(output, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("note.pdf"))
        for command in commands:
            done = subprocess.run(command, cwd=folder, capture_output=True, encoding="latin-1", check=False)
            if done.returncode:
                reason = first_error(done.stdout)
                raise InputError(f"{command[0]} could not typeset {output / 'main.tex'}: {reason}")
        write_bytes(output / "note.pdf", (folder / "main.pdf").read_bytes())
    return f"Wrote {output / 'note.pdf'}."


def first_error(log: str) -> str:
    """Return the first error of a LaTeX run with the line that it names."""
    lines = log.splitlines()
    for index, line in enumerate(lines):
        if line.startswith("!"):
            place = next((later for later in lines[index:] if later.startswith("l.")), "")
            return f"{line[1:].strip()} {place}".strip()
    return "see its log; run it by hand in that folder"
