"""Signatures in query strings: whoever reads a table or a log could fetch the object with them."""

from __future__ import annotations

import re

MASK = "***"
# Names of parameters that grant access: of S3, GCS, Azure, CloudFront, Akamai and the usual home-made ones.
_NAMES = (
    r"(?:[\w.%-]*[-_.])?(?:signature|sig|token|secret|password|passwd|pwd|credential|credentials|accesskeyid"
    r"|access_?key|api_?key|apikey|key|auth|authorization|jwt|hmac|policy|hdnts|hdnea|hdntl|sas|session)"
)
_PARAMETER = re.compile(
    rf"([?&;#](?:{_NAMES}|[\w.%-]*(?:AccessKeyId|Signature|Token))=)([^&;#\s\"'<>]+)", re.IGNORECASE
)


def mask_signatures(text: str) -> str:
    """Text with the values of signing parameters as `***`: `...?X-Amz-Signature=***&page=2`; others stay."""
    if "=" not in text:
        return text
    return _PARAMETER.sub(rf"\g<1>{MASK}", text)
