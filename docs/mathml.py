"""A Markdown extension: formulae as MathML, which browsers draw themselves, without a script.

`pymdownx.arithmatex` marks the formulae; this turns what it marked into `<math>`.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.postprocessors import Postprocessor

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


class MathML(Postprocessor):
    """The page's HTML with its formulae as MathML."""

    def run(self, text: str) -> str:
        text = _BLOCK.sub(lambda m: convert(html.unescape(m[1]), display="block"), text)
        return _INLINE.sub(lambda m: convert(html.unescape(m[1])), text)


class MathMLExtension(Extension):
    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802  the name that Markdown calls
        md.postprocessors.register(MathML(md), "mathml", 0)


def makeExtension(**options: Any) -> MathMLExtension:  # noqa: N802  the name that Markdown calls
    """What Markdown calls to load this module."""
    return MathMLExtension(**options)
