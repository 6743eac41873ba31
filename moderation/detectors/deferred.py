"""torch, imported at its first use: what a detector declares (labels, weights, options) needs none of its seconds.

    if TYPE_CHECKING:
        import torch
    else:
        from moderation.detectors.deferred import torch

Only for functions: a class that inherits from `nn.Module` belongs in a file of its own (`*_network.py`), which `load()`
imports. The standard library's `LazyLoader` would put a half-loaded torch where every other package looks for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final


class _Deferred:
    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:  # noqa: ANN401 - whatever the module has
        return getattr(import_module(self._name), attribute)


torch: Final = _Deferred("torch")
functional: Final = _Deferred("torch.nn.functional")
