"""Servers on the loopback that answer what the hubs' own clients ask."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

Files = dict[str, bytes]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class StandIn:
    """A server that keeps repositories in memory and notes every request."""

    def __init__(self) -> None:
        self.repositories: dict[str, Files] = {}
        """``models/owner/name`` -> path -> content."""
        self.requests: list[str] = []
        self.tokens: set[str] = set()
        self.private: dict[str, str] = {}
        """Repository -> the token that opens it."""
        self.broken = False

    def __enter__(self) -> Any:
        standin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            server_version: ClassVar[str] = "stand-in"

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if length else b""
                standin.requests.append(f"{self.command} {self.path}")
                token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
                if token:
                    standin.tokens.add(token)
                status, headers, content = (500, {}, b"{}") if standin.broken and self.path != "/" else (0, {}, b"")
                if not status:
                    parts = urlsplit(self.path)
                    query = {key: values[0] for key, values in parse_qs(parts.query).items()}
                    status, headers, content = standin.reply(self.command, unquote(parts.path), query, body, token)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PUT = answer

            def log_message(self, *_args: Any) -> None:
                """Keep quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def reply(
        self, method: str, path: str, query: dict[str, str], body: bytes, token: str
    ) -> tuple[int, dict[str, str], bytes]:
        raise NotImplementedError

    def asked(self, *words: str) -> list[str]:
        """Return the requests that contain all of the words."""
        return [request for request in self.requests if all(word in request for word in words)]


def as_json(value: Any, status: int = 200, **headers: str) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/json", **headers}, json.dumps(value).encode()


class HuggingFaceStandIn(StandIn):
    """The part of the Hugging Face API that downloads and uploads use."""

    def reply(self, method, path, query, body, token):
        words = path.strip("/").split("/")
        if path == "/":
            return 200, {}, b""
        if path == "/api/repos/create":
            facts = json.loads(body)
            owner, name = facts.get("organization") or "me", facts["name"]
            self.repositories.setdefault(f"models/{owner}/{name}", {})
            self.visibility = facts.get("visibility") or ("private" if facts.get("private") else "public")
            return as_json({"url": f"{self.address}/{owner}/{name}"})
        if path == "/api/validate-yaml":
            return as_json({"errors": [], "warnings": []})
        if words[0] == "api":
            return self._api(method, words[1:], query, body, token)
        kind = "datasets" if words[0] == "datasets" else "models"
        words = words[1:] if kind == "datasets" else words
        place = words.index("resolve")
        return self._file(method, f"{kind}/{'/'.join(words[:place])}", "/".join(words[place + 2 :]), token)

    def _api(self, method, words, query, body, token):
        verb = next((w for w in words if w in ("revision", "tree", "preupload", "commit")), None)
        place = words.index(verb) if verb else len(words)
        repository = "/".join(words[:place])
        files = self.repositories.get(repository)
        if files is None or (self.private.get(repository) not in (None, token)):
            return as_json({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})
        id = repository.partition("/")[2]
        if verb in (None, "revision"):
            if verb and words[place + 1] not in ("main", COMMIT, "v2"):
                return as_json({"error": "Revision Not Found"}, 404, **{"X-Error-Code": "RevisionNotFound"})
            return as_json({"id": id, "modelId": id, "sha": COMMIT, "siblings": [{"rfilename": n} for n in files]})
        if verb == "tree":
            return as_json([{"type": "file", "path": n, "size": len(c), "oid": _oid(c)} for n, c in files.items()])
        if verb == "preupload":
            wanted = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in wanted]
            return as_json({"files": modes})
        for line in body.splitlines():
            item = json.loads(line)
            if item["key"] == "file":
                files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            elif item["key"] == "header":
                self.message = item["value"]["summary"]
        return as_json({"commitUrl": f"{self.address}/{id}/commit/{COMMIT}", "commitOid": COMMIT, "success": True})

    def _file(self, method, repository, name, token):
        files = self.repositories.get(repository, {})
        if name not in files:
            return as_json({"error": "Entry not found"}, 404, **{"X-Error-Code": "EntryNotFound"})
        content = files[name]
        return 200, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": COMMIT}, content


class ModelScopeStandIn(StandIn):
    """The part of the ModelScope API that downloads and uploads use."""

    def reply(self, method, path, query, body, token):
        if path == "/":
            return 200, {}, b""
        if path == "/api/v1/models":
            facts = json.loads(body)
            repository = f"models/{facts['Path']}/{facts['Name']}"
            if repository in self.repositories:
                return as_json({"Code": 10010101001, "Message": "model already exists", "Success": False}, 400)
            self.visibility = facts["Visibility"]
            self.repositories[repository] = {}
            return as_json({"Code": 200, "Data": facts, "Success": True})
        if path.startswith("/blobs/"):
            self.blobs[path.removeprefix("/blobs/")] = body
            return as_json({"Code": 200, "Success": True})
        words = path.removeprefix("/api/v1/").removeprefix("repos/").split("/")
        repository, rest = "/".join(words[:3]), "/".join(words[3:])
        files = self.repositories.get(repository)
        if files is None or (self.private.get(repository) not in (None, token)):
            return as_json({"Code": 10010205001, "Message": "repo not found", "Success": False}, 404)
        if method == "POST":
            return self._upload(files, rest, json.loads(body))
        if rest in ("repo/files", "repo/tree"):
            if query.get("Revision") not in ("master", "v2"):
                return as_json({"Code": 404, "Message": "revision not found", "Success": False}, 404)
            listed = [self._entry(name, content) for name, content in files.items()]
            return as_json({"Code": 200, "Data": {"Files": listed}, "Success": True, "TotalCount": len(listed)})
        if rest == "repo":
            name = query["FilePath"]
            if name not in files:
                return as_json({"Code": 404, "Message": "file not found", "Success": False}, 404)
            return 200, {"Content-Type": "application/octet-stream"}, self.served.get(name, files[name])
        return as_json({"Code": 200, "Data": {"Id": 1, "Name": words[2], "Path": words[1]}, "Success": True})

    def _upload(self, files, rest, facts):
        if rest.startswith("info/lfs"):
            objects = [
                {**o, "actions": {"upload": {"href": f"{self.address}/blobs/{o['oid']}"}}} for o in facts["objects"]
            ]
            return as_json({"Code": 200, "Data": {"objects": objects}, "Success": True})
        self.message = facts["commit_message"]
        for action in facts["actions"]:
            normal = action["type"] == "normal"
            files[action["path"]] = base64.b64decode(action["content"]) if normal else self.blobs[action["sha256"]]
        return as_json({"Code": 200, "Data": {"oid": COMMIT}, "Success": True})

    def __init__(self) -> None:
        super().__init__()
        self.blobs: Files = {}
        self.served: Files = {}
        """Path -> what is sent in its place: a transfer that goes wrong."""

    def _entry(self, name, content):
        digest = hashlib.sha256(content).hexdigest()
        return {"Path": name, "Name": name.rpartition("/")[2], "Type": "blob", "Size": len(content), "Sha256": digest}


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
