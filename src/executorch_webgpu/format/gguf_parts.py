"""GGUF files that were split: which parts make a model, and that they belong together.

A part is named ``NAME-00001-of-00003.gguf``. Its header says ``split.no`` (from 0), ``split.count`` and
``split.tensors.count`` (of all parts); only the first part has the model's other keys. Source: the GGUF specification
of the ggml project, and its split tool.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidProgramError
from .gguf import GgufHeader, open_gguf_header

NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"
PART_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.ASCII | re.DOTALL)


def part_names(name: str, count: int | None = None) -> list[str] | None:
    """All parts of the model of which ``name`` is one, in order; None if it is not named like a part.

    ``count``: how many there must be; by default as many as ``name`` says.
    """
    matched = PART_NAME.fullmatch(name)
    if matched is None or int(matched[3]) == 0 or not 1 <= int(matched[2]) <= int(matched[3]):
        return None
    if count is not None and count != int(matched[3]):
        return None
    return [f"{matched[1]}-{i + 1:05}-of-{matched[3]}.gguf" for i in range(int(matched[3]))]


def gguf_parts(path: Path) -> list[Path]:
    """The files that make the model of which the GGUF file at ``path`` is a part, the first one first.

    A file that was not split is its own only part. InvalidProgramError if the file is not readable, has lost the name
    that leads to the others, or another part is missing.
    """
    count = _count(open_gguf_header(path).metadata, path)
    if count == 1:
        return [path]
    names = part_names(path.name, count)
    if names is None:
        raise InvalidProgramError(
            f"{path} is one of {count} parts of a model, and its name must say so: name the parts "
            f"NAME-00001-of-{count:05}.gguf to NAME-{count:05}-of-{count:05}.gguf, as they were"
        )
    parts = [path.with_name(name) for name in names]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise InvalidProgramError(
            f"{path} is one of {count} parts of a model, and {_listed(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing: put all parts into {path.parent}"
        )
    return parts


def check_parts(parts: Mapping[Path, GgufHeader]) -> None:
    """The headers of a model's parts, in order, say what their names do, and have all tensors once.

    InvalidProgramError if they do not.
    """
    if len(parts) == 1:
        return
    seen: dict[str, Path] = {}
    stated = None
    for number, (path, header) in enumerate(parts.items()):
        if _count(header.metadata, path) != len(parts) or header.metadata.get(NUMBER, 0) != number:
            raise InvalidProgramError(
                f"{path} is not part {number + 1} of {len(parts)}, as its name says: give the parts their own names "
                "back, or put the right one there"
            )
        for tensor in header.tensors:
            if tensor.name in seen:
                raise InvalidProgramError(
                    f"{path} and {seen[tensor.name].name} both have the tensor {tensor.name!r}: use parts of one model"
                )
            seen[tensor.name] = path
        stated = header.metadata.get(TENSORS, stated) if number == 0 else stated
    if stated is not None and stated != len(seen):
        raise InvalidProgramError(
            f"{next(iter(parts))} announces {stated} tensors in its parts, which have {len(seen)}: use parts of one "
            "model"
        )


def _count(metadata: Mapping[str, Any], path: Path) -> int:
    count = metadata.get(COUNT, 1)
    if type(count) is not int or not 0 <= count <= 0xFFFF:
        raise InvalidProgramError(f"{path} is split into {count!r} parts, which is no number: use another copy")
    return max(count, 1)


def _listed(names: list[str]) -> str:
    shown = names if len(names) <= 3 else [*names[:2], f"{len(names) - 2} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
