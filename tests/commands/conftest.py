"""The small config of the paper's tests."""

from paper.conftest import place  # noqa: F401
