"""A hub of models and data sets on this machine, enough of it for the hub's own client and package `datasets`.

It serves folders: ROOT/models/OWNER/NAME and ROOT/datasets/OWNER/NAME are repositories of a single revision.
"""

import contextlib
import hashlib
import http.server
import json
import os
import pathlib
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

REVISION = "0123456789abcdef0123456789abcdef01234567"


def environment(address: str, home: pathlib.Path) -> dict[str, str]:
    """Return the environment of a process that takes the hub at this address for the only one."""
    return dict(os.environ, HF_ENDPOINT=address, HF_HOME=str(home), HF_TOKEN="")


def _entry(folder: pathlib.Path, path: pathlib.Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest()}
    content = path.read_bytes()
    return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


def _handler(root: pathlib.Path, asked: list[str]) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def tell(self, value: Any) -> None:
            self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            self.do_GET(urllib.parse.parse_qs(self.rfile.read(size).decode()))

        def do_GET(self, form: dict[str, list[str]] | None = None) -> None:
            address = urllib.parse.urlsplit(self.path)
            parts = urllib.parse.unquote(address.path).strip("/").split("/")
            asked.append(f"{self.command} {self.path}")
            api = parts[0] == "api"
            parts = parts[1:] if api else parts
            kind = parts[0] if parts[0] in ("models", "datasets") else "models"
            parts = parts[1:] if parts[0] == kind else parts
            folder = root / kind / "/".join(parts[:2])
            if len(parts) < 2 or not folder.is_dir():
                self.answer(404, b"{}", X_Error_Code="RepoNotFound")
            elif not api and len(parts) > 4 and parts[2] == "resolve":
                self.file(folder / "/".join(parts[4:]))
            elif parts[2:3] == ["tree"]:
                below = folder / "/".join(parts[4:])
                found = sorted(below.rglob("*") if "recursive=true" in address.query.lower() else below.glob("*"))
                self.tell([_entry(folder, path) for path in found])
            elif parts[2:3] == ["paths-info"]:
                wanted = (form or {}).get("paths", [])
                self.tell([_entry(folder, folder / name) for name in wanted if (folder / name).is_file()])
            else:
                files = sorted(path for path in folder.rglob("*") if path.is_file())
                names = [{"rfilename": path.relative_to(folder).as_posix()} for path in files]
                self.tell({"id": "/".join(parts[:2]), "sha": REVISION, "siblings": names, "private": False, "tags": []})

        def file(self, path: pathlib.Path) -> None:
            if not path.is_file():
                self.answer(404, b"{}", X_Error_Code="EntryNotFound")
                return
            content = path.read_bytes()
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X_Repo_Commit": REVISION}
            begin, _, end = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
            if begin:
                last = min(int(end or len(content) - 1), len(content) - 1)
                span = f"bytes {begin}-{last}/{len(content)}"
                self.answer(206, content[int(begin) : last + 1], Content_Range=span, Accept_Ranges="bytes", **headers)
            else:
                self.answer(200, content, Accept_Ranges="bytes", **headers)

    return Handler


@contextlib.contextmanager
def serve(root: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder; yield the address, and the list of requests, which grows."""
    asked: list[str] = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(root, asked)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
