from tests.ops.conftest import device  # noqa: F401
