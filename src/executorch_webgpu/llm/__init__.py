"""Text generation over a program's ``forward(tokens, input_pos)`` method."""

from .decode_session import DecodeSession
from .engine import Engine
from .model import LanguageModel
from .sample import SamplingParams
from .stream import Stream

__all__ = ["DecodeSession", "Engine", "LanguageModel", "SamplingParams", "Stream"]
