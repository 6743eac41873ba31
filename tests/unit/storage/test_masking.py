"""Signatures of addresses go into the plan and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from moderation import storage
from moderation.config.model import SourceConfig
from moderation.sources import open_source
from moderation.storage import mask_signatures


@pytest.mark.parametrize(
    "query",
    [
        "X-Amz-Algorithm=AWS4&X-Amz-Credential=SECRET%2F1&X-Amz-Signature=SECRET&X-Amz-Security-Token=SECRET",
        "AWSAccessKeyId=SECRET&Signature=SECRET&Expires=1",
        "sv=2024&sp=r&sig=SECRET%3D",
        "alt=media&token=SECRET",
        "X-Goog-Signature=SECRET&X-Goog-Credential=SECRET",
        "Policy=SECRET&Key-Pair-Id=1&Signature=SECRET",
        "access_token=SECRET",
        "hdnts=SECRET",
        "API_KEY=SECRET&w=100",
    ],
)
def test_values_that_grant_access_are_masked_and_the_rest_stays(query: str) -> None:
    masked = mask_signatures(f"not read: https://h/a.jpg?{query}: still failing")
    assert "SECRET" not in masked
    assert masked.startswith("not read: https://h/a.jpg?") and "***" in masked


@pytest.mark.parametrize("text", ["s3://b/a=b.jpg", "https://h/a?w=100&h=50", "x = 1", "/a/token=b/c.jpg"])
def test_other_text_stays(text: str) -> None:
    assert mask_signatures(text) == text


def test_a_signed_row_is_shown_without_its_signature_and_fetched_with_it(tmp_path: Path) -> None:
    signed = "https://h/in/a.jpg?w=1&X-Amz-Signature=SECRET"
    (tmp_path / "m.jsonl").write_text(f'{{"uri": "{signed}", "thumb": "{signed}"}}\n{{"uri": "ftp://{signed[8:]}"}}\n')
    good, refused = open_source(str(tmp_path / "m.jsonl"), SourceConfig(allow=("https://h/in/",)))
    assert good.objects[0].uri == signed
    assert good.objects[0].name == "a.jpg"
    for text in (good.uri, good.attributes["thumb"], refused.uri, refused.error_detail):
        assert "SECRET" not in text
    assert good.uri == "https://h/in/a.jpg?w=1&X-Amz-Signature=***"


def test_what_storage_says_of_a_signed_address_is_masked() -> None:
    def fail() -> None:
        raise FileNotFoundError("https://h/a.jpg?sig=SECRET")

    with pytest.raises(FileNotFoundError) as caught:
        storage.retrying(fail, what="https://h/a.jpg?sig=SECRET")
    assert "SECRET" not in str(caught.value)
