"""Self-contained HTML of a template: styles, scripts and data inside, and nothing that is loaded from elsewhere.

Names in programs come from strangers. Templates escape them, scripts put them into the page as text only, and the
page's policy lets no script run but the two that it begins with, told by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

_TEMPLATES = Path(__file__).with_name("templates")


def render(template: str, script: str, data: Any, values: Mapping[str, Any]) -> str:
    """The page of ``template`` with ``values``. ``script``: the file that draws ``data``, which becomes JSON."""
    scripts = [_text(name) for name in ("tables.js", script)]
    hashes = " ".join(f"'sha256-{_hash(text)}'" for text in scripts)
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {hashes}; img-src data:; base-uri 'none'"
    made = _environment().get_template(template)
    return made.render(
        **values,
        policy=policy,
        style=Markup(_text("style.css")),
        scripts=[Markup(text) for text in scripts],
        data=data,
    )


def write_page(path: str | Path, text: str) -> None:
    """Write a page. Raises OSError."""
    Path(path).write_text(text, encoding="utf-8", errors="replace")  # a lone surrogate is no character


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ms": _milliseconds,
        "us": _microseconds,
        "percent": _percent,
        "size": size,
        "digits": digits,
    }
    return environment


@cache
def _text(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _milliseconds(nanoseconds: float | None) -> str:
    return "" if nanoseconds is None else digits(nanoseconds / 1e6)


def _microseconds(nanoseconds: float | None) -> str:
    return "" if nanoseconds is None else digits(nanoseconds / 1e3)


def digits(value: float) -> str:
    """Three digits, or all before the point."""
    if not value:
        return "0"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"


def size(nbytes: float) -> str:
    """Bytes in the largest unit that keeps the number at 1 or above."""
    value, unit = float(nbytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.4g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
