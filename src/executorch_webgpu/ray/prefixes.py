"""Which replica a request goes to: one that has computed the beginning of its prompt, unless that one is busy.

A request is known by hashes of longer and longer beginnings of its prompt. They are of its text, since whoever routes
has no tokenizer; an engine itself shares pages by tokens.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

Blocks = tuple[int, ...]  # hashes of the beginnings of a prompt, from the shortest on

PROMPTS = ("messages", "prompt", "input")  # what fields are called that have one
BLOCK = 512  # characters of a long text after which there is another hash
MOST_BLOCKS = 64  # of a prompt: what follows decides nothing
MOST_KNOWN = 1 << 16  # beginnings that a table remembers
BUSIER = 8  # requests that a replica may have more than another one and still get those that it knows


def prefix_blocks(body: bytes) -> Blocks:
    """The beginnings of the prompt that a request to OpenAI's API has; none for what has no prompt.

    Of a body that is cut off, and so is no JSON, what follows the prompt's name counts as it stands.
    """
    try:
        request = json.loads(body)
        return _hashes(_parts(request)) if isinstance(request, dict) else ()
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError; what is too deep, a replica refuses
        begins = [at for name in PROMPTS if (at := body.find(f'"{name}"'.encode())) >= 0]
        return _hashes([body[min(begins) :].decode("latin-1")]) if begins else ()


def _hashes(parts: Iterable[str]) -> Blocks:
    """Of the beginnings of a text in parts: up to the end of each part, and within long ones."""
    hashes: list[int] = []
    running = blake2b(digest_size=8)
    for part in parts:
        for start in range(0, len(part), BLOCK):
            running.update(part[start : start + BLOCK].encode("utf-8", "surrogatepass"))
            hashes.append(int.from_bytes(running.digest()))
            if len(hashes) == MOST_BLOCKS:
                return tuple(hashes)
    return tuple(hashes)


def _parts(request: Mapping[str, Any]) -> Iterator[str]:
    """What a prompt is made of, in the order of chat templates: tools, then messages."""
    if request.get("tools"):
        yield json.dumps(request["tools"])
    if isinstance(instructions := request.get("instructions"), str):
        yield instructions
    prompt = next((request[name] for name in PROMPTS if request.get(name)), None)
    if isinstance(prompt, list):
        if prompt and isinstance(prompt[0], int):
            yield json.dumps(prompt)  # tokens
        else:
            yield from (each if isinstance(each, str) else json.dumps(each) for each in prompt)
    elif isinstance(prompt, str):
        yield prompt


class PrefixTable:
    """Which replicas have computed which beginnings, as far as one router has sent them there."""

    def __init__(self, busier: int = BUSIER) -> None:
        self._busier = busier
        self._holders: OrderedDict[int, dict[str, None]] = OrderedDict()

    def ranked(self, blocks: Blocks, loads: Mapping[str, int]) -> list[str]:
        """Replicas from the best on. ``loads``: requests that each has.

        Those come first that have no more than ``busier`` requests above the idlest; among them, the one that knows
        most of the prompt; then the idlest; then one that every router would choose for this prompt.
        """
        least = min(loads.values(), default=0)

        def key(replica: str) -> tuple[bool, int, int, int]:
            busy = loads[replica] > least + self._busier
            tie = blake2b(f"{blocks[:1]}{replica}".encode(), digest_size=8).digest()
            return busy, -self._known(blocks, replica), loads[replica], int.from_bytes(tie)

        return sorted(loads, key=key)

    def remember(self, blocks: Sequence[int], replica: str) -> None:
        """A replica gets a prompt."""
        for block in blocks:
            self._holders.setdefault(block, {})[replica] = None
            self._holders.move_to_end(block)
        while len(self._holders) > MOST_KNOWN:
            self._holders.popitem(last=False)

    @property
    def held(self) -> set[str]:
        """Replicas of which something is known."""
        return {name for holders in self._holders.values() for name in holders}

    def keep(self, replicas: Collection[str]) -> None:
        """Forget what replicas know that are none of these any more."""
        for block, holders in list(self._holders.items()):
            kept = {name: None for name in holders if name in replicas}
            if not kept:
                del self._holders[block]
            elif len(kept) < len(holders):
                self._holders[block] = kept

    def _known(self, blocks: Blocks, replica: str) -> int:
        """How many of the beginnings a replica has computed."""
        for known, block in enumerate(blocks):
            if replica not in self._holders.get(block, ()):
                return known
        return len(blocks)
