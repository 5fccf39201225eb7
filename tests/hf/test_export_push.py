"""Uploading, against an HTTP endpoint of our own that speaks as the hub does."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from aprm_jax.hf.export import ExportError, push


class Hub(BaseHTTPRequestHandler):
    """Makes repositories and takes commits of small files."""

    made: list[dict[str, Any]]
    files: dict[str, bytes]
    refuse: int

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.refuse:
            self._answer({"error": "You are not allowed to"}, self.refuse)
        elif self.path == "/api/repos/create":
            self.made.append(json.loads(body))
            self._answer({"url": "https://huggingface.co/me/prm"})
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif self.path == "/api/models/me/prm/preupload/main":
            files = json.loads(body)["files"]
            self._answer(
                {"files": [{"uploadMode": "regular", **_ignored(f)} for f in files]}
            )
        elif self.path.startswith("/api/models/me/prm/commit/main"):
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    self.files[value["path"]] = base64.b64decode(value["content"])
            self._answer(
                {
                    "commitUrl": "https://huggingface.co/me/prm/commit/1",
                    "commitOid": "1",
                    "success": True,
                }
            )
        else:
            self._answer({"error": self.path}, 404)

    def do_GET(self):
        self._answer({"error": self.path}, 404)

    def _answer(self, value: Any, code: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _ignored(file: dict[str, Any]) -> dict[str, Any]:
    return {"path": file["path"], "shouldIgnore": False, "oid": None}


@pytest.fixture
def hub(monkeypatch) -> Iterator[type[Hub]]:
    class Mine(Hub):
        made, files, refuse = [], {}, 0

    server = ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    api = huggingface_hub.HfApi
    monkeypatch.setattr(
        huggingface_hub, "HfApi", lambda: api(endpoint=address, token="hf_test")
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield Mine
    server.shutdown()
    server.server_close()
    huggingface_hub.close_session()


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "README.md").write_text("---\ntags:\n- aprm_jax\n---\n")
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_a_folder_arrives_whole(hub, folder):
    address = push(folder, "me/prm")
    assert address.endswith("/me/prm/commit/1")
    assert hub.files == {p.name: p.read_bytes() for p in folder.iterdir()}
    (made,) = hub.made
    assert (made["name"], made["organization"]) == ("prm", "me")
    assert made.get("private") or made.get("visibility") == "private"


def test_a_refusal_says_what_to_do(hub, folder):
    hub.refuse = 403
    with pytest.raises(ExportError, match=r"push_to_hub='me/prm': .*hf auth login"):
        push(folder, "me/prm")
    assert not hub.files


def test_offline_is_said(folder):
    # The whole test run is offline.
    with pytest.raises(ExportError, match=r"offline mode"):
        push(folder, "me/prm")


@pytest.mark.parametrize("name", ["prm", "a/b/c", "", "../x"])
def test_a_name_that_is_none_is_refused_at_once(hub, folder, name):
    with pytest.raises(ExportError, match=r"takes user/name"):
        push(folder, name)
    assert not hub.made
