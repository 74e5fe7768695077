"""The tests; they mirror namd/. jaxtyping's hook reads `tests.typechecking` off this package."""

from tests import typechecking

__all__ = ["typechecking"]
