"""Text generation over a program's ``forward(tokens, input_pos)`` method."""

from .decode_session import DecodeSession
from .model import LanguageModel
from .sample import SamplingParams

__all__ = ["DecodeSession", "LanguageModel", "SamplingParams"]
