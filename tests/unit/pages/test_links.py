"""Which objects a page links to: pictures and videos, never what a browser could run, never a password."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.pages.links import object_link

TEMPLATE = "https://console.example/{bucket}?prefix={key}"


@pytest.mark.parametrize(
    ("uri", "link"),
    [
        ("/a/b c.jpg", "file:///a/b%20c.jpg"),
        ("/a/#1?.PNG", "file:///a/%231%3F.PNG"),
        ("file:///a/b.mp4", "file:///a/b.mp4"),
        ("https://x.example/a.html", "https://x.example/a.html"),
        ("s3://bucket/a/b c.jpg", "https://console.example/bucket?prefix=a/b%20c.jpg"),
        ("s3://bucket/a?b&c=d", "https://console.example/bucket?prefix=a%3Fb%26c%3Dd"),
        ("/a/page.html", None),
        ("/a/drawn.svg", None),
        ("a/b.jpg", None),
        ("/a/b.tar#c.jpg", None),
        ("s3://bucket/x.parquet#row=0", None),
        ("javascript://x/%0aalert(1)", None),
        ("javascript:alert(1).jpg", None),
        ("data:text/html,x.jpg", None),
        ("https://user:secret@x.example/a.jpg", None),
        ("https:///a.jpg", None),
        ("/a/\u202eb.jpg", None),
        ("/" + "a" * 3000 + ".jpg", None),
    ],
)
def test_the_address_of_an_object(uri: str, link: str | None) -> None:
    template = None if uri.startswith("javascript") else TEMPLATE
    assert object_link(uri, template) == link


def test_an_object_of_a_bucket_has_no_address_without_a_template() -> None:
    assert object_link("s3://bucket/a.jpg") is None


@given(st.text(), st.sampled_from([None, TEMPLATE]))
def test_no_address_is_of_another_scheme(uri: str, template: str | None) -> None:
    link = object_link(uri, template)
    assert link is None or link.startswith(("file:///", "http://", "https://", "HTTP", "hTTP"))
