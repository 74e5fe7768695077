"""Three complete small methods, as a new one is added: one folder and one line each."""

from namd.methods.base import Method
from tests.throwaway.adversarial.method import METHOD as ADVERSARIAL
from tests.throwaway.borrowed_change.method import METHOD as BORROWED_CHANGE
from tests.throwaway.mean_change.method import METHOD as MEAN_CHANGE

METHODS: dict[str, Method] = {
    "mean_change": MEAN_CHANGE,
    "borrowed_change": BORROWED_CHANGE,
    "adversarial": ADVERSARIAL,
}
