"""Tests of executorch_webgpu.llm."""
