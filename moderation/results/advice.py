"""What each error code means, and what to do about it, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from moderation.types import ErrorCode


class Advice(NamedTuple):
    """What an error code means to whoever runs the job, and what to do about it."""

    meaning: str
    action: str


ADVICE: Mapping[ErrorCode, Advice] = {
    ErrorCode.TOO_LARGE: Advice(
        "More bytes than media.max_bytes; it was not fetched.", "Raise media.max_bytes if such files are expected."
    ),
    ErrorCode.TOO_MANY_PIXELS: Advice(
        "More pixels than media.max_pixels: a huge scan, or a decompression bomb.",
        "Look at who uploaded it before you raise media.max_pixels.",
    ),
    ErrorCode.TOO_LONG: Advice(
        "A video longer than media.max_seconds.", "Raise media.max_seconds; media.frame_budget still bounds its cost."
    ),
    ErrorCode.TRUNCATED: Advice(
        "The end of the file is missing; what decoded was scored, but is never passed.",
        "Often an upload that broke off: fetch it again from its origin.",
    ),
    ErrorCode.UNSUPPORTED_TYPE: Advice(
        "The name says picture or video and the content is neither, nothing installed decodes it, or it is of no type "
        "that is known: what some viewer may show is not skipped.",
        "`moderation doctor` lists the decoders; a HEIC needs: pip install pillow-heif.",
    ),
    ErrorCode.CORRUPT: Advice(
        "A known type that its decoder refuses.", "Open one by hand: if it shows elsewhere, report the file."
    ),
    ErrorCode.EMPTY: Advice("A file of 0 bytes.", "Look for uploads that failed; delete it or upload it again."),
    ErrorCode.NO_FRAMES: Advice("A container without one picture, such as sound only.", "Nothing to moderate here."),
    ErrorCode.TIMEOUT: Advice(
        "Decoding took longer than media.decode_timeout_s.",
        "Raise media.decode_timeout_s if many are affected; a few are crafted or broken files.",
    ),
    ErrorCode.NOT_FOUND: Advice(
        "Listed or named in the manifest, but gone when it was to be read.",
        "Check the manifest's URIs; what was deleted meanwhile needs nothing.",
    ),
    ErrorCode.CHANGED: Advice(
        "The object changed between listing and reading, or is not the one whose sha256 its manifest tells.",
        "Run the job again with a new OUT over these items; the next night judges them by itself.",
    ),
    ErrorCode.FORBIDDEN: Advice(
        "Storage refused to read it, or it lies outside of source.allow: a row of a manifest, or a link in a folder.",
        "Give the job's credentials read access, or add the prefix to source.allow if you trust the manifest.",
    ),
    ErrorCode.FETCH_FAILED: Advice(
        "Storage kept failing after its retries.",
        "Check the endpoint and its limits, then run the job again with a new OUT over these items.",
    ),
    ErrorCode.DECODER_CRASHED: Advice(
        "The process died on this item; its neighbours were judged.",
        "Treat it as hostile: keep it away from other decoders, and report it to theirs.",
    ),
    ErrorCode.OUT_OF_MEMORY: Advice(
        "The item alone did not fit into a worker.", "Give workers more memory, or lower media.max_pixels."
    ),
    ErrorCode.SCORE_FAILED: Advice(
        "A detector raised on it.", "The detail names the exception; run it alone with --set stack.only=[DETECTOR]."
    ),
    ErrorCode.NOT_MEDIA: Advice(
        "Surely no media (a README, a JSON, a program): skipped, no verdict.",
        "Nothing; it counts as no error.",
    ),
}
_UNKNOWN = Advice("A code that this version does not know.", "Read the rows' error_detail.")


def describe_problems(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`code, items, share, meaning, action` of each error code of a run; skipped items are no errors and come last."""
    items = summary["items"]
    codes = sorted(summary["errors"].items(), key=lambda pair: pair[0] == ErrorCode.NOT_MEDIA)
    return [
        {"code": code, "items": n, "share": n / items if items else 0.0, **_advice(code)._asdict()} for code, n in codes
    ]


def _advice(code: str) -> Advice:
    return ADVICE[ErrorCode(code)] if code in set(ErrorCode) else _UNKNOWN
