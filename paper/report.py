"""The report: one self-contained HTML page from result files."""

import base64
from html import escape
from pathlib import Path
from typing import Any

from paper.words import short_commit

VERDICT_CLASS = {
    "holds": "good",
    "holds under a condition": "partly",
    "fails": "bad",
    "untestable here": "open",
    "same direction": "good",
    "opposite": "bad",
    "not distinguishable at this scale": "open",
    "untestable": "open",
}

STYLE = """
:root{color-scheme:light}
body{font:16px/1.5 system-ui,sans-serif;color:#1a1a1a;background:#fff;max-width:70rem;margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.7rem;line-height:1.2;margin-bottom:.3rem} h2{margin-top:2.6rem;border-bottom:1px solid #ddd}
nav a{margin-right:1rem} a{color:#0072b2} figure{margin:1.6rem 0} figure img{max-width:100%;height:auto}
figcaption{color:#444;font-size:.92rem;max-width:60rem}
table{border-collapse:collapse;font-size:.84rem;margin:.6rem 0} .wide{overflow-x:auto}
th,td{text-align:left;vertical-align:top;padding:.25rem .6rem;border-bottom:1px solid #e6e6e6} th{background:#f6f6f6}
td.n{text-align:right;font-variant-numeric:tabular-nums}
.v{white-space:nowrap;border-radius:.3rem;padding:.05rem .45rem;font-weight:600}
.good{background:#d5f0e6;color:#00543c} .partly{background:#fdf0cc;color:#664700}
.bad{background:#fbdcc8;color:#7a3000} .open{background:#e8e8e8;color:#333}
iframe{width:100%;height:40rem;border:1px solid #ddd}
details{margin:.5rem 0} summary{cursor:pointer} .small{font-size:.85rem;color:#555}
"""


def cell(value: Any) -> str:
    """Return one table cell."""
    if value is None:
        return "<td>–</td>"
    if isinstance(value, str) and value in VERDICT_CLASS:
        return f'<td><span class="v {VERDICT_CLASS[value]}">{value}</span></td>'
    if isinstance(value, bool):
        return f"<td>{'yes' if value else 'no'}</td>"
    if isinstance(value, float):
        return f'<td class="n">{value:.5g}</td>'
    if isinstance(value, int):
        return f'<td class="n">{value}</td>'
    return f"<td>{escape(str(value))}</td>"


def table(rows: list[dict[str, Any]]) -> str:
    """Return an HTML table of flat records."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = "".join(f"<th>{escape(column.replace('_', ' '))}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(cell(row.get(column)) for column in columns)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def ledger_table(rows: list[dict[str, Any]]) -> str:
    """Return the ledger with its evidence in one column; the full records are among the tables."""
    lines = []
    for row in rows:
        parts = [row["numbers"]]
        parts += [f"{name}: {row[name]}" for name in ("condition", "counterexample", "correction") if row[name]]
        evidence = "<br>".join(escape(str(part)) for part in parts if part)
        lines.append(
            f'<tr id="{escape(row["id"])}"><td><b>{escape(row["id"])}</b><br>'
            f'<span class="small">{escape(row["where"])}</span></td>'
            f"<td>{escape(row['statement'])}</td>{cell(row['verdict'])}<td>{evidence}</td></tr>"
        )
    head = "<th>claim</th><th>statement</th><th>verdict</th><th>evidence</th>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def picture(name: str, caption: str, folder: Path) -> str:
    """Return a figure with its image inside the page."""
    image = base64.b64encode((folder / f"{name}.png").read_bytes()).decode()
    return (
        f'<figure id="figure-{name}"><img alt="{escape(caption)}" src="data:image/png;base64,{image}">'
        f"<figcaption><b>{escape(name.replace('_', ' '))}.</b> {escape(caption)} "
        f'<span class="small">(figures/{name}.pdf, .png)</span></figcaption></figure>'
    )


def _beside(committed: dict[str, Any], rows: list[dict[str, Any]], size: str) -> list[str]:
    """Return a section for each experiment with its question and its rows."""
    parts = []
    for name, whole in committed.items():
        mine = [row for row in rows if row["experiment"] == name]
        shown = [{key: value for key, value in row.items() if key != "experiment"} for row in mine]
        parts.append(f"<h3>{escape(name + size)}</h3><p><b>{escape(whole['question'])}</b></p>{table(shown)}")
    return parts


def experiments(result: dict[str, Any]) -> str:
    """Return the section on the experiments: each question, what the paper has and what came out, and what was live.

    Args:
        result: of the step lm_experiments.
    """
    data = result["data"]
    larger = data["larger"]
    parts = _beside(data["committed"], data["tables"]["beside_the_paper"], "")
    parts += _beside(
        larger["committed"], data["tables"]["beside_the_paper_larger"], f", models of {larger['size']} parameters"
    )
    live = data["tables"]["live_against_committed"]
    within, changes = (
        f"{sum(row[name] is True for row in live)} of {sum(row[name] is not None for row in live)}"
        for name in ("within", "change_within")
    )
    apart = [abs(row["live_nats"] - row["same_seed_nats"]) for row in live if row["same_seed_nats"] is not None]
    return (
        "<p>Small decoders trained on human, synthetic and edited text: equal numbers of tokens and updates in every "
        "arm, settings chosen on human text alone, evaluation text without any thirteen words in a row of training "
        "text. Values are changes of the loss on human test text in nats a token unless a statement says otherwise, "
        "with the half-width of the 95 % interval over seeds and the standard error over works of the test text.</p>"
        + "".join(parts)
        + f"<h3>Made in this run</h3><p>{within} comparisons of the loss of models that this run trained lie inside "
        f"the 95 % prediction interval of the committed ones, and {changes} of its change from the human-only model (a "
        "model that two experiments share counts in each). They have seeds of the committed ones, so that this is "
        "no new draw of the seed but of rounding: the committed model of the same seed is "
        f"{max(apart, default=0.0):.3f} nats away at most. The same libraries on the same processor give the same "
        "numbers; its name does not tell all about it.</p>" + table(live)
    )


def framed(html: str) -> str:
    """Return a page of its own inside this one, folded away."""
    return (
        "<details><summary>Edited passages side by side (committed run)</summary>"
        f'<iframe title="edited passages" srcdoc="{escape(html)}"></iframe>'
        "</details>"
    )


def origin(results: dict[str, dict[str, Any]]) -> str:
    """Return a table that says how each result was made."""
    rows = [
        {
            "step": name,
            "seed": result["seed"],
            "seconds": result["wall_seconds"],
            "commit": short_commit(result["commit"]),
            "processor": f"{result['machine']['processor']}, {result['machine']['cores']} cores",
            "versions": ", ".join(f"{package} {number}" for package, number in result["versions"].items()),
        }
        for name, result in results.items()
    ]
    return table(rows)


def page(title: str, results: dict[str, dict[str, Any]], figures: Path, edits: str) -> str:
    """Return the report.

    Args:
        title: heading of the page.
        results: every result by step name; "claims" holds the ledger, "figures" the captions.
        figures: folder with the drawn PNG files.
        edits: page of edited passages.
    """
    ledger = results["claims"]["data"]
    captions = results["figures"]["data"]["captions"]
    measured = results["lm_claims"]["data"]
    claims = ledger["tables"]["ledger"] + measured["tables"]["ledger"]
    tables = "".join(
        f"<details><summary>{escape(name)}: {escape(title)} ({len(rows)} rows)</summary>{table(rows)}</details>"
        for name, result in results.items()
        for title, rows in result["data"].get("tables", {}).items()
    )
    pictures = "".join(picture(name, caption, figures) for name, caption in captions.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p class="small">A replication of Zhu et al., "How to Synthesize Text Data without Model Collapse?"
(ICML 2025, arXiv 2412.14689).
Numbers marked committed come from result files of the repository, with the commit that made them; every other number
on this page was computed by the run that wrote it.</p>
<nav><a href="#ledger">Ledger</a><a href="#experiments">Experiments</a><a href="#figures">Figures</a>
<a href="#tables">Tables</a><a href="#origin">How it was made</a></nav>
<h2 id="ledger">Ledger of claims</h2>
<p>Theory and simulation. {escape(ledger["summary"])}</p>
<p>Language models, below these in the table. {escape(measured["summary"])}</p>
{ledger_table(claims)}
<h2 id="experiments">Experiments</h2>
{experiments(results["lm_experiments"])}
<h2 id="figures">Figures</h2>
{pictures}
{framed(edits)}
<h2 id="tables">Tables</h2>
{tables}
<h2 id="origin">How it was made</h2>
{origin(results)}
</body></html>
"""
