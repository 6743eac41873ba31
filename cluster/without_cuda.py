"""The image's lock for machines without a GPU: `python without_cuda.py requirements.lock BASE TORCH`.

BASE gets all packages but torch, torchvision, torchcodec and what they bring for CUDA; TORCH their versions, to be
installed from the index of CPU builds (https://download.pytorch.org/whl/cpu), whose files have other hashes.
"""

import re
import sys
from pathlib import Path

FROM_CPU_INDEX = ("torch", "torchvision", "torchcodec")
ONLY_CUDA = ("nvidia-", "cuda-", "triton")


def split_lock(text: str) -> tuple[str, str]:
    """(the lock without CUDA, the pins of torch)."""
    kept, pins = [], []
    for block in re.split(r"(?m)^(?=[a-zA-Z0-9])", text):
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\\n]+)", block)
        name = match[1].lower() if match else ""
        if match and name in FROM_CPU_INDEX:
            pins.append(f"{name}=={match[2]}\n")
        elif not name.startswith(ONLY_CUDA):
            kept.append(block)
    return "".join(kept), "".join(pins)


if __name__ == "__main__":
    lock, base, torch = map(Path, sys.argv[1:])
    without, pinned = split_lock(lock.read_text(encoding="utf-8"))
    base.write_text(without, encoding="utf-8")
    torch.write_text(pinned, encoding="utf-8")
