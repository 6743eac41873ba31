"""The page of a head: figures, curves, what was gained and forgotten; names from strangers are escaped."""

from __future__ import annotations

import torch

from moderation.pages.render import render
from moderation.training.heads.bundle import HeadOutcome
from moderation.training.heads.forgetting import HeadPair, compare_heads
from moderation.training.heads.quality import measure_head

CLASSES = ("hat", "<b>shoe", "new")


def outcome(*, changed: bool) -> HeadOutcome:
    logits = torch.eye(3).repeat(3, 1) * 4
    targets = torch.eye(3).repeat(3, 1)
    quality = measure_head(logits, targets, CLASSES, temperature=1.0, several=False)
    pair = HeadPair(before=logits[:, :2], after=logits, targets=targets, kinds=["old"] * 6 + ["added"] * 3)
    change = compare_heads(pair, CLASSES, several=False, max_forgotten=0.05)
    return HeadOutcome(
        out="out",
        uri="out/head.safetensors",
        sha256="0" * 64,
        name="goods",
        method="probe",
        classes=CLASSES,
        card={"backbone": {"detector": "imagenet", "licence": "Apache-2.0"}, "data": {"pictures": 9}},
        held=quality,
        test=None,
        losses=(),
        change=change if changed else None,
    )


def test_page_shows_curves_and_what_was_forgotten_and_escapes_names() -> None:
    page = render("head.html", head=outcome(changed=True))
    assert "Gained and forgotten" in page
    assert "Older pictures" in page and "Added pictures" in page and "Test pictures" not in page
    assert page.count("<polyline") == 3
    assert "<b>shoe" not in page and "&lt;b&gt;shoe" in page


def test_page_of_a_first_head_has_nothing_to_compare() -> None:
    assert "Gained and forgotten" not in render("head.html", head=outcome(changed=False))
