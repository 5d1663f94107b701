"""File formats: bytes to frozen dataclasses and back, with no GPU and no copies of the weights."""
