"""Names of devices. Whether one is there is seen by the workers alone; a word that is none is told at once."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator

_DEVICE: Final = re.compile(r"auto|(cpu|cuda|mps|xpu)(:[0-9]{1,3})?")


def _check(given: str) -> str:
    if not _DEVICE.fullmatch(given):
        hint = "; did you mean 'cuda'?" if given.startswith("gpu") else ""
        raise ValueError(f"{given!r} is no device: should be auto, cpu, cuda or cuda:N{hint}")
    return given


DeviceName = Annotated[str, AfterValidator(_check)]
