"""Text and token ids: tokenizers and chat templates, as model files bring them."""
