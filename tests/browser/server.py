"""A JupyterLab server of its own: a copy of the project, a free port, a token, no settings of the user.

Knows nothing of browsers.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},  # every cell is in the page
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/apputils-extension:themes": {"adaptive-theme": True},  # dark where the browser is
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}


def copy_project(folder: Path) -> Path:
    """Copies what a notebook reads to `folder`, so that the committed notebooks stay stripped."""
    for name in ("notebooks", "params"):
        ignored = shutil.ignore_patterns(".ipynb_checkpoints", "runs", "figures")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    (folder / "maft_lib").symlink_to(ROOT / "maft_lib")  # the miniature model lies in it
    return folder


class LabServer:
    """JupyterLab in a process of its own, as `make lab` starts it, on the project in `folder`.

    `home` takes its settings, logs and the runs of its kernels. `answers` waits until pages are served.
    """

    def __init__(self, folder: Path, home: Path, **environment: str):
        self.folder, self.home, self.token = folder, home, secrets.token_hex(16)
        self.url = f"http://127.0.0.1:{_free_port()}"
        _write_settings(home)
        self.log = home / "server.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command(),
                cwd=folder,
                env=own_environment(home, **environment),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _command(self) -> list[str]:
        options = {
            "ServerApp.port": self.url.rsplit(":", 1)[1],
            "ServerApp.port_retries": 0,
            "IdentityProvider.token": self.token,
            "ServerApp.root_dir": self.folder,
            "ServerApp.open_browser": False,
            "LabApp.expose_app_in_browser": True,  # so that a page can say how its kernel is
            "ServerApp.allow_root": True,  # CI's containers know no other user
        }
        return [
            *(sys.executable, "-m", "jupyterlab"),
            *(f"--{name}={value}" for name, value in options.items()),
        ]

    def answers(self, seconds: float = 60) -> LabServer:
        """Waits until the server answers; raises `TimeoutError` with the end of its log."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self._ask("api/status")
                return self
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
        raise TimeoutError(f"JupyterLab does not answer; its log ends: {self.log.read_text()[-2000:]}")

    def address(self, path: str, workspace: str) -> str:
        """The address of a file's page, in an empty workspace of that name."""
        return f"{self.url}/lab/workspaces/{workspace}/tree/{path}?token={self.token}&reset"

    def end_kernels(self) -> None:
        """Ends all sessions and their kernels."""
        for session in json.loads(self._ask("api/sessions")):
            self._ask(f"api/sessions/{session['id']}", "DELETE")

    def stop(self) -> None:
        """Ends the server with all kernels and whatever they have started."""
        server = psutil.Process(self.process.pid)
        family = [server, *server.children(recursive=True)]
        self.process.terminate()
        for process in psutil.wait_procs(family, timeout=15)[1]:
            process.kill()
        self.process.wait()

    def _ask(self, path: str, method: str = "GET") -> bytes:
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}/{path}", headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def own_environment(home: Path, **environment: str) -> dict[str, str]:
    """Nothing of the user's Jupyter is read or written; kernels run the library of this tree."""
    return {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "user-settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "MAFT_RUNS_DIR": str(home / "runs"),
        "PYTHONPATH": str(ROOT),
        **environment,
    }


def _write_settings(home: Path) -> None:
    folder = home / "config" / "labconfig"
    folder.mkdir(parents=True)
    (folder / "default_setting_overrides.json").write_text(json.dumps(SETTINGS))
