"""The bottleneck of a run, from its busy and its waiting seconds: why the device is idle, in one sentence. Pure.

A shard's thread scores, waits for the device while another shard scores (`device:lock`), waits for frames
(`device:starved`), judges or writes. The step with most of that time is the bottleneck; where it is waiting for frames,
the decoders' waits tell whether they in turn waited for bytes (`decode:starved`) or for memory (`decode:memory`, summed
over threads like their busy time).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_LEAST_S: Final = 10.0  # of the shards' time; in less, what is done once outweighs the rest

_ADVICE = {
    "score": "scoring: shards were at the device, or queued for it, {share} of their time. More or faster devices, or a"
    " smaller stack, would help.",
    "fetch": "reading: the device waited for frames {share} of the shards' time, and the decoders for bytes. Storage"
    " nearer to the workers, more runtime.fetch_threads or a larger runtime.fetch_budget_bytes would help.",
    "decode": "decoding: the device waited for frames {share} of the shards' time, while the decoders were at work."
    " More CPU cores a worker, or videos cut beforehand by `moderation keyframes`, would help.",
    "memory": "memory for decoding: the device waited for frames {share} of the shards' time, and decoders for memory"
    " that others held. A larger runtime.decode_budget_bytes, on workers with that much memory, would help.",
    "judge": "judging: the policy took {share} of the shards' time.",
    "write": "writing: encoding the tables took {share} of the shards' time. Fewer embeddings kept, or a quicker"
    " output.compression, would help.",
}


def nest_waits(waits: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """`{"device": {"starved": 1.5}}` from `{"device:starved": 1.5}`; seconds."""
    nested: dict[str, dict[str, float]] = {}
    for wait, seconds in waits.items():
        who, _, kind = wait.partition(":")
        nested.setdefault(who, {})[kind] = round(seconds, 3)
    return nested


def find_bottleneck(seconds: Mapping[str, float], waits: Mapping[str, float]) -> tuple[str, float] | None:
    """The step on which, or waiting for which, shards spent most time, and its share (0..1); None where unknown.

    seconds: busy, by step. waits: idle, by `who:kind`. Both are summed over the shards of a run.
    """
    spent = _spent(seconds, waits)
    total = sum(spent.values())
    if not waits or total <= 0:
        return None
    step = max(spent, key=lambda name: spent[name])
    return step, spent[step] / total


def _spent(seconds: Mapping[str, float], waits: Mapping[str, float]) -> dict[str, float]:
    """Step -> seconds of the shards."""
    return {
        "score": seconds.get("score", 0.0) + waits.get("device:lock", 0.0),
        _find_supply(seconds, waits): waits.get("device:starved", 0.0),
        "judge": seconds.get("judge", 0.0),
        "write": seconds.get("write", 0.0),
    }


def _find_supply(seconds: Mapping[str, float], waits: Mapping[str, float]) -> str:
    """What held up the frames: bytes, memory to decode them in, or decoding itself."""
    if waits.get("decode:starved", 0.0) > waits.get("device:starved", 0.0) / 2:
        return "fetch"
    return "memory" if waits.get("decode:memory", 0.0) > seconds.get("decode", 0.0) else "decode"


def tell_bottleneck(seconds: Mapping[str, float], waits: Mapping[str, float]) -> str | None:
    """The bottleneck and what would help, in a sentence; None where it is unknown or the run too short to tell."""
    bottleneck = find_bottleneck(seconds, waits)
    if bottleneck is None or sum(_spent(seconds, waits).values()) < _LEAST_S:
        return None
    step, share = bottleneck
    return _ADVICE[step].format(share=f"{share:.0%}")
