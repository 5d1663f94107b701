"""Calls of tools in the format of each model family: told from the chat template, prepared, parsed, forced."""

from __future__ import annotations

from .detect import tool_format
from .parser import ToolCallParser
from .tool_format import ToolFormat

__all__ = ["ToolCallParser", "ToolFormat", "tool_format"]
