"""Every format of calls, by name, as templates of ours bring it."""

from __future__ import annotations

from executorch_webgpu.text.tool_calls import ToolFormat, tool_format
from tests.text.tool_calls.templates import FAMILIES

FORMATS: dict[str, ToolFormat] = {name: tool_format(source) for name, source in FAMILIES.items()}
FORMATS["generic"] = tool_format(None)
