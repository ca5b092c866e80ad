"""A server that speaks as much of the Hub's protocol as fetching one repository takes."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """One repository, `repo`, of `kind` models or datasets. `size` is what it claims each file to have."""

    def __init__(self, repo: str, files: dict[str, bytes], kind: str = "models", sha: str = SHA) -> None:
        self.files, self.sha = files, sha
        self.asked: list[str] = []
        self.size: int | None = None
        self._pages = f"/{repo}/" if kind == "models" else f"/{kind}/{repo}/"
        self._api, self._repo = f"/api/{kind}/{repo}", repo
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                hub.asked.append(f"{self.command} {self.path}")
                code, body, headers = hub.answer(self.path.split("?")[0])
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        if path.startswith(f"{self._pages}resolve/"):
            name = path.removeprefix(f"{self._pages}resolve/").partition("/")[2]
            if name in self.files:
                etag = hashlib.sha1(self.files[name]).hexdigest()
                return 200, self.files[name], {"ETag": f'"{etag}"', "X-Repo-Commit": self.sha}
            return 404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.sha}
        if path.startswith(f"{self._api}/tree/"):
            return self._tree(path.removeprefix(f"{self._api}/tree/").partition("/")[2])
        if path == self._api or path.startswith(f"{self._api}/revision/"):
            if path.rpartition("/revision/")[2] not in (path, self.sha, "main", self.sha[:12]):
                return 404, b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Revision not found"}
            siblings = [{"rfilename": n, "size": self.size or len(c)} for n, c in self.files.items()]
            about = {"id": self._repo, "modelId": self._repo, "sha": self.sha, "siblings": siblings}
            return self._json(about)
        return 404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}

    def _tree(self, folder: str) -> tuple[int, bytes, dict[str, str]]:
        inside = {n: c for n, c in self.files.items() if not folder or n.startswith(f"{folder}/")}
        if not inside:
            return 404, b"{}", {"X-Error-Code": "EntryNotFound"}
        at = len(folder) + 1 if folder else 0
        folders = {n[: n.index("/", at)] for n in inside if "/" in n[at:]}
        tree: list[dict[str, Any]] = [{"type": "directory", "path": n, "oid": "0" * 40} for n in sorted(folders)]
        tree += [
            {"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in inside.items() if "/" not in n[at:]
        ]
        return self._json(tree)

    @staticmethod
    def _json(value: Any) -> tuple[int, bytes, dict[str, str]]:
        return 200, json.dumps(value).encode(), {"Content-Type": "application/json"}
