"""The HTTP server: OpenAI's API over an ``Engine``. Needs the extra ``[serve]``."""
