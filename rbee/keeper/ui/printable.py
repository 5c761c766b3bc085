"""Show control characters instead of obeying them: what models and logs say must not steer a terminal. Pure."""

from __future__ import annotations

from typing import Final

_KEPT: Final = "\n\t"
_C0: Final = {code: f"^{chr(code ^ 64)}" for code in (*range(32), 127) if chr(code) not in _KEPT}
_C1: Final = {code: f"\\x{code:02x}" for code in range(128, 160)}
_SHOWN: Final = {**_C0, **_C1, ord("\r"): ""}


def printable(text: str) -> str:
    """Return *text* with each control character but tabs and line ends made visible, such as `^[` for Escape.

    A carriage return, which would let what follows it hide what was said before, is left out.
    """
    return text.translate(_SHOWN)
