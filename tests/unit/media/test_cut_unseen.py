"""Keyframes of a video of which something was not seen say so, too."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from moderation.config.model import MediaConfig
from moderation.media import decode_item
from moderation.policy.bind import bind
from moderation.policy.judge import judge_item
from moderation.policy.model import Policy
from moderation.types import Item, ItemVotes, Kind, MediaObject, Seen
from tests.drawn_media import jpegs


def test_what_the_cutting_did_not_see_is_unseen_in_the_keyframes() -> None:
    objects = (MediaObject(uri="a.jpg", name="a.jpg", frame=0, time_s=0.0),)
    item = Item(
        item_id="v", uri="v", objects=objects, kind=Kind.KEYFRAMES, attributes={"cut_from.unseen": "track,picture"}
    )
    assert decode_item(item, jpegs(1), MediaConfig()).unseen == ("track", "picture")


@pytest.mark.parametrize(
    ("times_s", "attributes", "gap_s"),
    [
        ([0.0], {"cut_from.duration_s": "3600"}, 3600.0),
        ([None], {"cut_from.duration_s": "3600"}, 3600.0),
        ([0.0, None], {"cut_from.duration_s": "3600"}, 3600.0),
        ([0.0, 3600.0], {}, 3600.0),
        ([0.0, None, 3600.0], {}, 3600.0),
        ([10.0, 12.0, 15.0], {}, 3.0),
        ([None, None], {}, None),
        ([5.0], {}, None),
    ],
)
def test_a_frame_that_stands_for_an_hour_is_a_gap(
    times_s: list[float | None], attributes: dict[str, str], gap_s: float | None
) -> None:
    objects = tuple(MediaObject(uri=f"{n}.jpg", name=f"{n}.jpg", frame=n, time_s=t) for n, t in enumerate(times_s))
    item = Item(item_id="v", uri="v", objects=objects, kind=Kind.KEYFRAMES, attributes=attributes)
    media = decode_item(item, jpegs(len(times_s)), MediaConfig())
    assert media.widest_gap_s == gap_s
    policy = "default: pass\nchecks: {bad: {side: negative, votes: [a.bad], review: 0.9}}"
    bound = bind(Policy.model_validate(yaml.safe_load(policy)), ("a.bad",))
    count = len(times_s)
    votes = ItemVotes(
        labels=("a.bad",), frames=tuple(range(count)), times_s=tuple(times_s), scores=np.zeros((count, 1), np.float32)
    )
    seen = Seen(kind=media.kind, duration_s=media.duration_s, widest_gap_s=media.widest_gap_s, unseen=media.unseen)
    judged = judge_item(votes, None, bound, seen)
    assert judged.reason == ("unseen:gap" if gap_s and gap_s > 60 else "default:pass")


def test_what_a_tar_says_of_its_video_is_marked_as_claimed() -> None:
    objects = (MediaObject(uri="a.jpg", name="a.jpg", frame=0, time_s=0.0),)
    attributes = {"cut_from.duration_s": "3600", "cut_from.width": "9000", "cut_from.height": "9000"}
    item = Item(item_id="v", uri="v", objects=objects, kind=Kind.KEYFRAMES, attributes=attributes)
    media = decode_item(item, jpegs(1), MediaConfig())
    assert (media.width, media.duration_s) == (9000, 3600)
    assert media.reader == "keyframes (claimed: times, size, length, cut_from)"
    untimed = Item(item_id="v", uri="v", objects=(MediaObject(uri="a.jpg", name="a.jpg"),), kind=Kind.KEYFRAMES)
    assert decode_item(untimed, jpegs(1), MediaConfig()).reader is None
