"""Text that people read: strangers' text is bounded and cannot alter the text around it; numbers never mislead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.pages.text import count, number, percent, plain, printable, short_line, size, span


@given(st.text(max_size=1000))
def test_a_strangers_text_becomes_one_bounded_printable_line(text: str) -> None:
    shown = plain(text)
    assert shown.isprintable()
    assert len(shown) <= 243


@given(st.text(max_size=100))
def test_printable_keeps_the_length_and_what_was_printable(text: str) -> None:
    shown = printable(text, instead="?")
    assert len(shown) == len(text)
    assert all(a == b or (b == "?" and not a.isprintable()) for a, b in zip(text, shown, strict=True))


@given(st.text(max_size=100), st.integers(1, 50))
def test_a_short_line_is_bounded_and_has_no_spaces_in_a_row(text: str, max_chars: int) -> None:
    shown = short_line(text, max_chars)
    assert shown.isprintable()
    assert len(shown) <= max_chars
    assert "  " not in shown


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_share_between_none_and_all_reads_as_neither(share: float) -> None:
    assert percent(share) not in ("0%", "0.0%", "100%", "100.0%")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (percent(None), "–"),
        (percent(0.0), "0%"),
        (percent(1.0), "100%"),
        (percent(0.123), "12.3%"),
        (size(0), "0 B"),
        (size(1536), "1.5 KiB"),
        (size(300 << 20), "300 MiB"),
        (size(2 << 40), "2.0 TiB"),
        (span(0.004), "4 ms"),
        (span(59.94), "59.9 s"),
        (span(61), "1 min 01 s"),
        (span(7384), "2 h 03 min"),
        (count(12345.0), "12,345"),
        (number(0.12345), "0.123"),
        (number(None), "–"),
    ],
)
def test_numbers_read_as_expected(text: str, expected: str) -> None:
    assert text == expected
