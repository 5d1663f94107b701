"""Tests of executorch_webgpu.cli."""
