"""Whether weights that lie elsewhere could be fetched from here: asked before a run needs them; nothing is fetched."""

from __future__ import annotations

import threading
from pathlib import Path

from moderation import storage
from moderation.detectors.base import Weights
from moderation.detectors.weights.locator import default_cache
from moderation.detectors.weights.mirror import find_mirrored, mirror_uri
from moderation.errors import FatalError, ModerationError, one_line

# As long as a hub that is far away takes to answer, and short enough to wait for.
TIMEOUT_S = 20.0


def is_here(w: Weights) -> bool:
    """Whether weights are in place: in a package, a local file, or fetched before."""
    if w.locator.startswith(("pkg://", "file://")):
        return True
    return bool(w.sha256) and (default_cache() / f"{w.sha256.lower()}{Path(w.locator).suffix}").is_file()


def why_out_of_reach(w: Weights, timeout_s: float = TIMEOUT_S) -> str | None:
    """Why weights that are not here cannot be fetched; None where they can be, as far as asking tells."""
    answers: list[str | None] = []
    # A daemon: a hub that hangs must not keep the process from ending.
    thread = threading.Thread(target=lambda: answers.append(_ask(w, timeout_s)), daemon=True)
    thread.start()
    thread.join(timeout_s)
    return answers[0] if answers else f"no answer in {timeout_s:g} s"


def _ask(w: Weights, timeout_s: float) -> str | None:
    try:
        mirror = mirror_uri()
        if mirror and find_mirrored(w, mirror):
            return None
        if w.locator.startswith("hf://"):
            return _ask_hub(w.locator.removeprefix("hf://"), timeout_s)
        storage.info(w.locator)
    except FileNotFoundError:
        return "there is no such object"
    except (ModerationError, FatalError, OSError) as error:
        return one_line(error, 200)
    return None


def _ask_hub(rest: str, timeout_s: float) -> str | None:
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    except ImportError:
        return "pip install huggingface-hub"
    steps = rest.split("/", 2)
    if len(steps) != 3 or not all(steps):
        return "expected hf://org/name[@revision]/file"
    name, _, revision = steps[1].partition("@")
    repository = f"{steps[0]}/{name}"
    if isinstance(try_to_load_from_cache(repository, steps[2], revision=revision or None), str):
        return None
    try:
        get_hf_file_metadata(hf_hub_url(repository, steps[2], revision=revision or None), timeout=timeout_s)
    except Exception as error:  # noqa: BLE001 - the hub's client raises of several libraries; whatever it is, it is why
        return f"the hub: {type(error).__name__}: {one_line(error, 150)}"
    return None
