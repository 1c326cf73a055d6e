"""The readable page of a run: settings, counts by domain, and a few documents side by side with the changes marked.

One HTML file without scripts. All text comes from corpora, so all of it is escaped, control characters are shown as
pictures, and the page's own policy lets nothing be loaded or run.
"""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

MOST_DOMAINS = 40  # rows of the table by domain; stats.json has all
MOST_DOCUMENTS = 8
MOST_SUBSTITUTIONS = 24

_STYLE = """
:root{color-scheme:light dark;--ink:#1a1a1a;--soft:#555;--line:#ddd;--old:#fbdcc8;--new:#cdeade;--back:#fff}
@media(prefers-color-scheme:dark){
:root{--ink:#e8e8e8;--soft:#aaa;--line:#444;--old:#6b3410;--new:#0d5540;--back:#161616}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:72rem;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.6rem;line-height:1.2} h2{font-size:1.2rem;margin-top:2.4rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:1.6rem 0 .3rem;overflow-wrap:anywhere} .soft{color:var(--soft);font-size:.88rem}
.wide{overflow-x:auto} table{border-collapse:collapse;font-size:.86rem}
th,td{text-align:left;vertical-align:top;padding:.2rem .7rem .2rem 0;border-bottom:1px solid var(--line)}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:1rem}
.pair>div,q{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate} q{quotes:none}
.pair>div{border:1px solid var(--line);border-radius:.3rem;padding:.6rem .8rem;font-size:.9rem}
del,ins{color:inherit;border-radius:.2rem;padding:0 .1rem;cursor:help;unicode-bidi:isolate}
del{background:var(--old)} ins{background:var(--new);text-decoration:underline;font-weight:600}
.cut{color:var(--soft);font-style:italic}
@media(max-width:44rem){.pair{grid-template-columns:1fr}}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
# Control characters have no meaning in HTML, and those that turn the direction of text could disguise it.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
_PICTURES |= dict.fromkeys([*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD)


def _text(content: object) -> str:
    """Return text for HTML: escaped, without control characters and halves of surrogate pairs."""
    return escape(str(content).encode(errors="replace").decode().translate(_PICTURES))


def _token(content: str) -> str:
    """Return a token's text with its line ends visible."""
    return _text(content).replace("\n", "⏎\n") or "∅"


def _percent(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _with_error(found: Mapping[str, Any] | None, scale: float, digits: int) -> str:
    """Return a value with its standard error, as text."""
    if found is None or found["value"] is None:
        return "–"
    error = "" if found["standard_error"] is None else f" ± {scale * found['standard_error']:.{digits}f}"
    return f"{scale * found['value']:.{digits}f}{error}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], numbers: int) -> str:
    """Return a table of cells that are HTML; the last `numbers` columns are numbers."""
    columns = list(head)
    kinds = ["" if place < len(columns) - numbers else ' class="n"' for place in range(len(columns))]
    top = "".join(f"<th{kind}>{column}</th>" for kind, column in zip(kinds, columns, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>\n"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>\n'


def _settings(about: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    for name, value in about.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{before}{name}: ")
        else:
            yield _text(f"{before}{name}".replace("_", " ")), _text(value)


def _domain_row(name: str, rates: Mapping[str, Any], scores: Mapping[str, Any]) -> tuple[str, ...]:
    means, entropy = scores["mean_log_probability"], scores["entropy"]
    return (
        name,
        f"{rates['documents']:,}",
        f"{rates['tokens']:,}",
        _percent(rates["selected_share"]["value"], 2),
        f"{rates['changed']:,}",
        f"{rates['deleted']:,}",
        _with_error(rates["effective_edit_rate"], 100, 3),
        f"{scores['documents']:,}",
        _with_error(means["before"], 1, 3),
        _with_error(means["change"], 1, 4),
        _with_error(entropy["changed"], 1, 2),
    )


_DOMAIN_HEAD = (
    "domain", "documents", "tokens", "selected", "changed", "deleted", "effective edit rate, %",
    "sampled", "mean log P", "its change", "entropy at changes",
)  # fmt: skip


def _domains(summary: Mapping[str, Any]) -> str:
    rates, scores = summary["domains"], summary["sample"]["domains"]
    # The largest ones, should there be many.
    names = sorted(rates, key=lambda name: (-rates[name]["tokens"], name))
    rows = [_domain_row(_text(name), rates[name], scores[name]) for name in names[:MOST_DOMAINS]]
    rows.append(_domain_row("<b>all</b>", summary["total"], summary["sample"]["total"]))
    left = f"; the {MOST_DOMAINS} largest of {len(names)} domains" if len(names) > MOST_DOMAINS else ""
    return (
        "<h2>By domain</h2>\n"
        + _table(_DOMAIN_HEAD, rows, len(_DOMAIN_HEAD) - 1)
        + '<p class="soft">± is one standard error over documents. The last four columns are of the sampled documents: '
        f"nats per token, the change from a second pass of the prior over the edited text{left}.</p>\n"
    )


def _substitutions(summary: Mapping[str, Any]) -> str:
    rows = [
        (
            f"<q>{_token(row['old'])}</q>",
            "<i>deleted</i>" if row["new"] is None else f"<q>{_token(row['new'])}</q>",
            f"{row['count']:,}",
        )
        for row in summary["substitutions"]["rows"][:MOST_SUBSTITUTIONS]
    ]
    return "<h2>Most frequent substitutions</h2>\n" + _table(("from", "to", "times"), rows, 1) if rows else ""


def _examples(summary: Mapping[str, Any]) -> str:
    rows = [
        (
            _text(row["domain"]),
            f"<q>{_text(row['before'])}<del>{_token(row['old'])}</del> <ins>{_token(row['new'])}</ins>"
            f"{_text(row['after'])}</q>",
            _percent(row["p_old"]),
            _percent(row["p_new"]),
        )
        for row in summary["examples"]
    ]
    head = ("domain", "edit in context", "P before", "P after")
    return "<h2>Edits in context</h2>\n" + _table(head, rows, 2) if rows else ""


def _mark(segment: Mapping[str, Any], tag: str) -> str:
    """Return a changed token as it was (del) or became (ins), with its numbers as title."""
    entropy = "–" if segment["entropy"] is None else f"{segment['entropy']:.3f}"
    title = f"P of the old token {_percent(segment['p_old'])}, entropy {entropy} nats; "
    title += "deleted" if segment["deleted"] else f"P of the new token {_percent(segment['p_new'])}"
    content = segment["old"] if tag == "del" else segment["new"]
    return f'<{tag} title="{_text(title)}">{_token(content)}</{tag}>'


def _column(segments: Iterable[Mapping[str, Any]], tag: str) -> str:
    parts = []
    for segment in segments:
        if "text" in segment:
            parts.append(_text(segment["text"]))
        elif "cut" in segment:
            parts.append(f' <span class="cut">[{segment["cut"]:,} bytes]</span> ')
        else:
            parts.append(_mark(segment, tag))
    return "".join(parts)


def _document(document: Mapping[str, Any]) -> str:
    left = document["changed"] - document["changed_shown"]
    more = f", {left:,} of them not shown" if left else ""
    return (
        f"<h3>{_text(document['domain'])}: {_text(document['document'])}</h3>\n"
        f'<p class="soft">{document["tokens"]:,} tokens, {document["changed"]:,} changed{more}.</p>\n'
        f'<div class="pair"><div dir="auto">{_column(document["segments"], "del")}</div>'
        f'<div dir="auto">{_column(document["segments"], "ins")}</div></div>\n'
    )


def _documents(summary: Mapping[str, Any]) -> str:
    by_domain: dict[str, list[Mapping[str, Any]]] = {}
    for document in summary["documents"]:
        by_domain.setdefault(document["domain"], []).append(document)
    # One of each domain before a second of any.
    order = sorted((place, name) for name, documents in by_domain.items() for place in range(len(documents)))
    chosen = [by_domain[name][place] for place, name in order[:MOST_DOCUMENTS]]
    if not chosen:
        return "<h2>Documents</h2>\n<p>No sampled document was changed.</p>\n"
    return (
        "<h2>Documents, original and edited</h2>\n"
        '<p class="soft">Chosen by a hash of their keys; long ones are cut around their edits. Rest the pointer on a '
        "changed token for its probabilities and the entropy of the prior's distribution there.</p>\n"
        + "".join(map(_document, chosen))
    )


def page(summary: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Return one self-contained HTML file.

    Args:
        summary: of `lm.editing.statistics.summary`; it holds the documents to show.
        about: the run's settings, in the order to show them (nested mappings allowed).
    """
    total = summary["total"]
    words = (
        f"{total['changed']:,} of {total['tokens']:,} tokens in {total['documents']:,} documents changed: an effective "
        f"edit rate of {_with_error(total['effective_edit_rate'], 100, 3)} %. Selected were {total['selected']:,}."
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Edited text</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<style>{_STYLE}</style></head><body>\n<h1>Edited text</h1>\n<p>{words}</p>\n"
        + _domains(summary)
        + _documents(summary)
        + _examples(summary)
        + _substitutions(summary)
        + "<h2>Settings</h2>\n"
        + _table(("setting", "value"), _settings(about), 0)
        + "</body></html>\n"
    )
