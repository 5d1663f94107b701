"""Models from files of weights: from a GGUF to a complete program, without torch."""
