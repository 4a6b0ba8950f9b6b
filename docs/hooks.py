"""Formulae as MathML when the site is built: browsers draw it themselves, without a script."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """The page's HTML with what `pymdownx.arithmatex` marked turned into `<math>`."""
    content = _BLOCK.sub(lambda m: convert(html.unescape(m[1]), display="block"), content)
    return _INLINE.sub(lambda m: convert(html.unescape(m[1])), content)
