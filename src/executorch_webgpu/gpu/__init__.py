"""The GPU layer: the only package that imports a WebGPU engine.

``device`` opens an adapter, ``kernel`` turns WGSL into pipelines, ``buffers`` owns memory and ``profile``
reads timestamps.  Nothing here knows about operators or programs.
"""
