#!/bin/sh
# ensure_adapter.sh PYTHON: makes sure that WebGPU has an adapter, with Mesa's CPU driver where there is no GPU.
# PYTHON is an interpreter that has wgpu. A machine with a working adapter is left as it is.
set -eu
python=$1

has_adapter() {
    # Each time in a new process, since a process reads the drivers only once. OpenGL adapters are too limited.
    "$python" - 2>/dev/null <<'CODE'
import sys
import wgpu
adapters = wgpu.gpu.enumerate_adapters_sync()
sys.exit(all(adapter.info["backend_type"] == "OpenGL" for adapter in adapters))
CODE
}

has_adapter && exit 0
echo "No WebGPU adapter was found: using Mesa's Vulkan driver for the CPU." >&2
"$(dirname "$0")/apt_install.sh" libvulkan1 mesa-vulkan-drivers
has_adapter && exit 0
echo "Still no WebGPU adapter: check with vulkaninfo (Debian package vulkan-tools) that a Vulkan driver works." >&2
exit 1
