"""Policies, votes and facts of items as hypothesis draws them: for what must hold of all."""

from __future__ import annotations

import math
from datetime import date, timedelta
from typing import Any

import numpy as np
from hypothesis import strategies as st

from moderation.policy.model import Policy
from moderation.types import ItemFacts, ItemVotes, Kind, Seen, Verdict

NEGATIVE = ("n.one", "n.two", "m.one")
POSITIVE = ("p.one", "p.two")
LABELS = (*NEGATIVE, *POSITIVE)
HARSHNESS = {Verdict.PASS: 0, Verdict.REVIEW: 1, Verdict.BLOCK: 2}

# Few distinct values, so that scores meet thresholds and each other.
level = st.sampled_from([0.0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0])
vote = st.one_of(level, level, level, st.floats(0, 1, width=32), st.just(math.nan))


@st.composite
def fuses(draw, count):
    method = draw(st.sampled_from(["max", "min", "mean", "weighted_mean", "k_of_n"]))
    missing = draw(st.sampled_from(["null", "skip"]))
    extra = {"k": draw(st.integers(1, count))} if method == "k_of_n" else {}
    return {"method": method, "missing": missing, **extra}


@st.composite
def pools(draw, methods):
    method = draw(st.sampled_from(methods))
    if method in ("top_k_mean", "bottom_k_mean"):
        return {"method": method, "k": draw(st.integers(1, 3))}
    if method == "run":
        return {"method": method, "length": draw(st.integers(1, 3)), "gap": draw(st.integers(0, 2))}
    return {"method": method}


@st.composite
def checks(
    draw,
    side,
    labels,
    *,
    negative_pools=("any", "all", "mean", "top_k_mean", "bottom_k_mean", "run", "linear_softmax"),
    nulls,
):
    chosen = draw(st.lists(st.sampled_from(labels), min_size=1, max_size=len(labels), unique=True))
    fuse = draw(fuses(len(chosen)))
    weighted = fuse["method"] == "weighted_mean"
    check = {
        "side": side,
        "votes": {label: draw(st.floats(0.1, 10)) if weighted else 1.0 for label in chosen},
        "fuse": fuse,
        "pool": draw(pools(negative_pools if side == "negative" else ("all", "bottom_k_mean", "mean"))),
        "null": draw(st.sampled_from(nulls)),
    }
    if side == "positive":
        return {**check, "pass": draw(level)}
    review, block = sorted([draw(level), draw(level)])
    kept = draw(st.sampled_from([("block",), ("review",), ("block", "review")]))
    return {**check, **{k: v for k, v in {"block": block, "review": review}.items() if k in kept}}


@st.composite
def policies(draw, nulls=("review", "ignore"), **kwargs):
    negative = draw(st.lists(checks("negative", NEGATIVE, nulls=nulls, **kwargs), min_size=1, max_size=3))
    positive = draw(st.lists(checks("positive", POSITIVE, nulls=nulls), max_size=2))
    named = {f"n{i}": c for i, c in enumerate(negative)} | {f"p{i}": c for i, c in enumerate(positive)}
    return Policy.model_validate({"default": draw(st.sampled_from(["review", "pass"])), "checks": named})


rows = st.lists(st.lists(vote, min_size=len(LABELS), max_size=len(LABELS)), min_size=1, max_size=6)


def votes_of(scores):
    return ItemVotes(
        labels=LABELS,
        frames=tuple(range(len(scores))),
        times_s=(None,) * len(scores),
        scores=np.array(scores, np.float32).reshape(-1, len(LABELS)),
    )


def raised(scores, labels, data):
    """The same votes with some of these labels' raised; nulls stay null."""
    out = [list(row) for row in scores]
    for row in out:
        for column, label in enumerate(LABELS):
            if label in labels and row[column] == row[column] and data.draw(st.booleans()):
                row[column] = max(row[column], data.draw(level))
    return out


REGIONS = ("eu", "us", "cn")
OWNERS = ("ann", "bob")
TODAY = date(2026, 11, 26)
HASHES = tuple(f"{n:x}" * 64 for n in range(1, 4))


@st.composite
def overrides(draw: st.DrawFn, check: dict[str, Any]) -> dict[str, Any]:
    """`by` of a check: thresholds for some regions and owners."""
    own = [name for name in ("block", "review", "pass") if name in check]
    by: dict[str, Any] = {}
    for attribute, values in (("region", REGIONS), ("owner", OWNERS)):
        for value in draw(st.lists(st.sampled_from(values), max_size=2, unique=True)):
            chosen = draw(st.lists(st.sampled_from(own), min_size=1, unique=True))
            thresholds = {name: draw(level) for name in chosen}
            review, block = thresholds.get("review", check.get("review")), thresholds.get("block", check.get("block"))
            if review is None or block is None or review <= block:
                by.setdefault(attribute, {})[value] = thresholds
    return by


@st.composite
def lists(draw: st.DrawFn) -> dict[str, Any]:
    """One allow- or deny-list."""
    action = draw(st.sampled_from(["deny", "allow"]))
    by, values, extra = draw(
        st.sampled_from(
            [
                ("content_hash", HASHES, {}),
                ("pdq", HASHES, {"distance": 8}),
                ("owner", OWNERS, {}),
                ("attribute", REGIONS, {"attribute": "region"}),
            ]
        )
    )
    chosen = draw(st.lists(st.sampled_from(values), max_size=2, unique=True))
    ends = st.sampled_from([None, TODAY, TODAY - timedelta(days=1)])
    entries = [{"value": value, "reason": f"because of {value}", "until": draw(ends)} for value in chosen]
    verdict = {"verdict": draw(st.sampled_from(["block", "review"]))} if action == "deny" else {}
    return {"action": action, "by": by, "entries": entries, **extra, **verdict}


@st.composite
def full_policies(draw: st.DrawFn, *, allow: bool = True) -> Policy:
    """Policies of every rule that there is. allow: with allow-lists, too."""
    plain = draw(policies())
    tree = plain.model_dump(mode="json", by_alias=True, exclude_none=True)
    negative = [name for name in tree["checks"] if name.startswith("n")]
    for name, check in tree["checks"].items():
        check["by"] = draw(overrides(check))
        if name in negative:
            severe = check["pool"]["method"] == "any"
            check["severity"] = draw(st.sampled_from(["low", "high", "critical"] if severe else ["low", "high"]))
            if "block" in check:
                check["isolated"] = draw(st.sampled_from(["review", "ignore"]))
    tree["checks"]["seen"] = {"side": "attribute", "votes": ["p.one"], "pool": "mean"}
    tree["lists"] = {f"l{i}": drawn for i, drawn in enumerate(draw(st.lists(lists(), max_size=3)))}
    if not allow:
        tree["lists"] = {name: rule for name, rule in tree["lists"].items() if rule["action"] == "deny"}
    tree["vouch"] = {"person_only": {"at_least": {"seen": draw(level)}, "others_below": draw(level)}}
    tree["audit"] = {
        "salt": draw(st.sampled_from(["a", "b"])),
        "block": {"check": negative[0], "rate": draw(st.sampled_from([0.3, 1.0])), "from": 0.0},
        "pass": {"check": negative[0], "rate": 0.5, "to": draw(level)},
    }
    orders = [
        None,
        {"severity": 0, "reach": {"attribute": "views", "full": 100}},
        {"uncertainty": 2, "disagreement": 1, "age": {"attribute": "since", "full_days": 3}},
    ]
    tree["review_order"] = draw(st.sampled_from(orders))
    tree["language"] = draw(st.sampled_from(["en", "zh"]))
    return Policy.model_validate(tree)


@st.composite
def item_facts(draw: st.DrawFn) -> ItemFacts:
    """What is known of an item besides its votes; an album may be of two regions."""
    region = draw(st.sampled_from([*REGIONS, '["eu", "us"]', None]))
    owner = draw(st.sampled_from([*OWNERS, None]))
    views = draw(st.sampled_from(["0", "7", "1000", "-1", "many", None]))
    since = draw(st.sampled_from(["2026-11-25", "2026-11-20T10:00:00+02:00", "2027-01-01", "soon", None]))
    named = {"region": region, "owner": owner, "views": views, "since": since}
    return ItemFacts(
        item_id=draw(st.sampled_from(["i1", "i2", "i3"])),
        attributes={name: value for name, value in named.items() if value is not None},
        content_hash=draw(st.sampled_from([*HASHES, None])),
        pdq=draw(st.sampled_from([*HASHES, None])),
    )


kinds = st.sampled_from([Kind.IMAGE, Kind.ALBUM, Kind.VIDEO])


@st.composite
def seens(draw: st.DrawFn) -> Seen:
    """How much of an item was looked at."""
    unseen = draw(st.sampled_from([(), (), (), ("track",)]))
    return Seen(kind=draw(kinds), duration_s=9.0, widest_gap_s=draw(st.sampled_from([None, 1.0, 99.0])), unseen=unseen)
