"""A mapping that holds what its owner may read, and refuses by name to look up anything else."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TypeVar

V = TypeVar("V")


class RefusingMapping(Mapping[str, V]):
    """Some entries of another mapping.

    Unlike a dictionary, it does not answer `in` or `get` for a name outside `names`: an absent
    entry and one that may not be read must not look alike.

    Args:
        content: The other mapping; its entries outside `names` are left out.
        names: What may be read, whether or not it is there.
        refuse: Returns the error for a name that may not be read.
    """

    def __init__(
        self, content: Mapping[str, V], names: Collection[str], refuse: Callable[[str], Exception]
    ) -> None:
        self._content = {name: value for name, value in content.items() if name in names}
        self._names = names
        self._refuse = refuse

    def __getitem__(self, name: str) -> V:
        if name not in self._names:
            raise self._refuse(name)
        return self._content[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def __repr__(self) -> str:
        return repr(self._content)
