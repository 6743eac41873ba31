"""`python -m moderation.media.decoder_process FD SETTINGS`: decodes items that arrive over a socket.

The process has no credentials, bounded memory, no network where the kernel lets a process drop it, and writes no file.
A file that crashes, stalls or fills it costs that item and this process, but no worker.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import socket
import sys
from pathlib import Path

from moderation.concurrency import die_with_parent
from moderation.config.model import MediaConfig
from moderation.errors import ItemError
from moderation.media.decode import decode_item
from moderation.media.decoders import load_decoders
from moderation.media.wire import receive_request, send_media
from moderation.types import ErrorCode, Item, Kind, Media

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_MAX_FILES = 64


def main() -> None:
    """Serve until the worker closes the socket. The first message is the configuration."""
    sock = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(sys.argv[2])
    config = MediaConfig.model_validate(settings["media"])
    leave_network()
    die_with_parent()  # after it: new rights take the request back
    # FFmpeg alone maps over a gigabyte of address space.
    load_decoders(config)
    _limit(settings["memory_bytes"])
    while True:
        request = receive_request(sock)
        if request is None:
            return
        item, payloads, limits = request
        try:
            media = decode_item(item, payloads, config, limits)
            send_media(sock, media)
        except MemoryError:
            send_media(sock, _failed(item, ErrorCode.OUT_OF_MEMORY, "decoding needs more memory than it may have"))
        except ItemError as error:
            send_media(sock, _failed(item, error.code, error.detail))


def leave_network() -> bool:
    """Move to a separate network namespace, which has no way out; False where the kernel does not allow it."""
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.unshare(_CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0)


def _limit(memory_bytes: int) -> None:
    # Counted from here: interpreter and libraries are already mapped.
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    bound = pages * os.sysconf("SC_PAGE_SIZE") + memory_bytes
    for kind, most in (
        (resource.RLIMIT_AS, bound),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _MAX_FILES),
    ):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _failed(item: Item, code: ErrorCode, detail: str) -> Media:
    return Media(kind=item.kind or Kind.UNKNOWN, error=code, error_detail=detail)


if __name__ == "__main__":
    main()
