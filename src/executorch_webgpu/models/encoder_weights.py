"""Whether a source has the tensors of an encoder, each with its dims, and no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import InvalidProgramError, UnsupportedProgramError
from .encoder import EncoderConfig
from .weights import Weight

_SHOWN = 4  # names of tensors in a message


def check_tensors(config: EncoderConfig, spelled: Mapping[str, str], found: Mapping[str, Weight], source: str) -> None:
    """``spelled``: what the source calls each weight of ours. ``source``: what kind of thing it is, for messages.

    InvalidProgramError, which names them, if weights are missing or of other sizes; UnsupportedProgramError if some
    have no place.
    """
    if config.layers > len(found):
        raise InvalidProgramError(
            f"The {source} has no tensors for its {config.layers} layers: use one with all weights of the model."
        )
    needed = {spelled[name]: dims for name, dims in config.weight_dims().items()}
    if foreign := [name for name in found if name not in needed]:
        raise UnsupportedProgramError(
            f"The tensors {_listed(foreign)} have no place in the encoders that are here: use the encoder alone."
        )
    if missing := [name for name in needed if name not in found]:
        raise InvalidProgramError(
            f"The {source} has no tensors {_listed(missing)}: use one with all weights of the model."
        )
    wrong = [
        f"'{name}' is {list(found[name].dims)}, not {list(dims)}"
        for name, dims in needed.items()
        if found[name].dims != dims
    ]
    if wrong:
        raise InvalidProgramError(
            f"{'; '.join(wrong[:_SHOWN])}, as the configuration says: they are not of one model, so get the {source} "
            "again from where it was whole."
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
