"""Starts the tritonserver that the wheel nvidia-pytriton holds, without a container: for tests and measurements on a CPU."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from dovit.runtime.errors import DovitError

WHEEL = "nvidia-pytriton==0.7.0"  # Triton 2.51; its own dependencies are not needed: they are PyTriton's
NUMPY = "numpy==1.26.4"  # Python backends up to Triton 2.52 cannot take NumPy 2's arrays (python_backend #384)
STUB = "triton_python_backend_stub"
START_SECONDS = 90
END_SECONDS = 5  # after which it is killed: it would wait forever for an instance that was killed


def install_server(folder: Path) -> None:
    """Unpack the wheel into `folder`, put the Python backend together for the Python that runs this, and NumPy 1 beside it.

    Raises DovitError where these cannot be had, or there is nothing for this Python.
    """
    _install(WHEEL, folder)
    _install(NUMPY, folder / "numpy1")
    server = folder / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / version / STUB
    if not stub.exists():
        raise DovitError(f"{WHEEL} holds no Python backend for Python {version}; use Python 3.8 to 3.13")
    shutil.copy(stub, server / "backends" / "python" / STUB)
    for program in (server / "bin" / "tritonserver", server / "backends" / "python" / STUB):
        program.chmod(0o755)


def site_packages(installed: Path) -> list[Path]:
    """Where the server finds dovit: NumPy 1, and then the packages of the Python that runs this."""
    return [installed / "numpy1", *(Path(path) for path in sys.path if path.endswith("-packages"))]


def _install(package: str, folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    done = subprocess.run([*pip, "--no-deps", "--target", folder, package], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise DovitError(f"{package} cannot be installed: {reason}; it comes from PyPI, for Linux on x86-64")


class TritonServer:
    """A running server, on ports of 127.0.0.1 that were free. A context manager, which waits until it is ready and ends it."""

    def __init__(self, installed: Path, repository: Path, log: Path, *options: str) -> None:
        """`installed`: what `install_server` made; `log`: where the server's output goes; `options`: for tritonserver."""
        self._installed, self._repository, self._log, self._options = installed, repository, log, options
        http, grpc, metrics = _free_ports(3)
        self.http, self.grpc = f"127.0.0.1:{http}", f"127.0.0.1:{grpc}"
        self._metrics = f"http://127.0.0.1:{metrics}/metrics"
        self._ports = [f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}"]

    def __enter__(self) -> Self:
        server = self._installed / "pytriton" / "tritonserver"
        # PATH without an active virtual environment: the server's Python would find that one's packages before any others
        environment = os.environ | {
            "PATH": os.defpath,
            "LD_LIBRARY_PATH": str(self._installed / "nvidia_pytriton.libs"),
        }
        command = [
            str(server / "bin" / "tritonserver"),
            f"--model-repository={self._repository}",
            f"--backend-directory={server / 'backends'}",
            "--http-address=127.0.0.1",
            "--grpc-address=127.0.0.1",
            *self._ports,
            *self._options,
        ]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def counters(self, *names: str) -> dict[str, float]:
        """The server's counters of these names, each summed over its labels. The last request may not be counted yet."""
        with urllib.request.urlopen(self._metrics, timeout=10) as answer:
            text = answer.read().decode()  # Prometheus' text format
        return {name: sum(map(float, re.findall(rf"^{name}{{.*}} ([0-9.e+]+)$", text, re.MULTILINE))) for name in names}

    def log(self) -> str:
        """What the server has printed so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def stubs(self) -> list[int]:
        """The process numbers of the instances of Python models."""
        found = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                before, _, after = status.read_text().rpartition(")")
            except OSError:  # it has ended
                continue
            if STUB.startswith(before.partition("(")[2]) and int(after.split()[1]) == self.process.pid:
                found.append(int(status.parent.name))
        return found

    def _wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise DovitError(f"tritonserver ended with status {self.process.returncode}: {self.log()[-2000:]}")
            try:
                with urllib.request.urlopen(f"http://{self.http}/v2/health/ready", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise DovitError(f"tritonserver was not ready after {START_SECONDS} s: {self.log()[-2000:]}")

    def _end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
