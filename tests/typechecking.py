"""The type checker that `--jaxtyping-packages` puts on every function of namd under test."""

from beartype import BeartypeConf, beartype

# PEP 484's tower: an int is welcome where a float is asked for, as type checkers have it.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
