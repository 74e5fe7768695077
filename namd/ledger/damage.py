"""The error for a damaged file of a ledger."""

from namd.config.errors import InputError
from namd.ledger.schema import study_folder
from namd.storage.base import Storage


class LedgerDamaged(InputError):  # noqa: N818 - says what is the case
    """A file of a study's ledger is missing or is not what was written."""


def damaged(storage: Storage, study: str, file: str, problem: str) -> LedgerDamaged:
    """Return the error that names a file of a ledger and the way out.

    Args:
        storage: The store's storage.
        study: The study's name.
        file: The file's path in the study's folder.
        problem: What is wrong with it, as the end of a sentence.
    """
    return LedgerDamaged(
        f"store {storage.root}: {study_folder(study)}/{file} {problem}; `namd study repair {study} "
        f"--store {storage.root}` sets it aside and lists what is lost"
    )
