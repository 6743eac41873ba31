"""The actions file: what is done to the objects of which rows, and where that may have an effect."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from moderation.policy.section import PolicySection
from moderation.types import Verdict

# What S3 allows: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html
MAX_TAGS: Final = 10
MAX_TAG_NAME: Final = 128
MAX_TAG_VALUE: Final = 256

ActionKind = Literal["tag", "copy", "move", "manifest", "webhook"]
# Which keys belong to what is done: those that it needs, and those that it may have.
_NEEDED: Final = {
    "tag": ("tags",), "copy": ("to",), "move": ("to",), "manifest": ("to",), "webhook": ("url", "secret_env"),
}  # fmt: skip
_OWN: Final = ("tags", "to", "url", "secret_env", "per_second", "attempts", "timeout_s")
_OF_WEBHOOK: Final = ("per_second", "attempts", "timeout_s")


class RowMatch(PolicySection):
    """Which rows an action is for: all that is given must hold. Of several words in a list, one must."""

    verdict: tuple[Verdict, ...] = Field(min_length=1, description="block, review, pass")
    check: tuple[str, ...] = Field(default=(), description="names of checks that decided")
    reason: tuple[str, ...] = Field(default=(), description="reasons; * stands for any text: negative:*:block")
    severity: tuple[str, ...] = ()
    label: tuple[str, ...] = ()


class ActionRule(PolicySection):
    """One action."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="by which receipts know it")
    do: ActionKind
    when: RowMatch
    tags: dict[str, str] = Field(
        default_factory=dict,
        max_length=MAX_TAGS,
        description="of tag; values may hold {verdict}, {reason}, ...",
    )
    to: str | None = Field(default=None, description="prefix for copies; of manifest: the .jsonl file")
    url: str | None = Field(default=None, description="of webhook: https, or http to this machine")
    secret_env: str | None = Field(default=None, description="of webhook: environment variable with the HMAC's secret")
    per_second: float = Field(default=5.0, gt=0, le=1000, description="of webhook: requests, retries among them")
    attempts: int = Field(default=5, ge=1, le=20, description="of webhook")
    timeout_s: float = Field(default=10.0, gt=0, le=120, description="of webhook: for the whole answer")

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        """Each kind has its own keys, so that a key is never without effect."""
        needed = _NEEDED[self.do]
        for key in needed:
            if not getattr(self, key):
                raise ValueError(f"`do: {self.do}` needs `{key}`")
        allowed = (*needed, *_OF_WEBHOOK) if self.do == "webhook" else needed
        for key in _OWN:
            if key in self.model_fields_set and key not in allowed:
                raise ValueError(f"`{key}` does not belong to `do: {self.do}`; it has: {', '.join(allowed)}")
        return self


class ActionsFile(PolicySection):
    """All of an actions file."""

    objects: tuple[str, ...] = Field(
        default=(), description="prefixes whose objects may be tagged, copied or moved; no other object is touched"
    )
    destinations: tuple[str, ...] = Field(default=(), description="prefixes that copies and manifests may go to")
    actions: tuple[ActionRule, ...] = Field(min_length=1, max_length=100)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [rule.name for rule in self.actions]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two actions are called {twice!r}")
        if any(rule.do in ("tag", "copy", "move") for rule in self.actions) and not self.objects:
            raise ValueError("`objects` is needed: the prefixes whose objects may be tagged, copied or moved")
        return self
