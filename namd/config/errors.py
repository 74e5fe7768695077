"""Errors that are the user's to mend belong here; failures of the program do not."""


class InputError(Exception):
    """What the user gave cannot be used. The message is one line: path, value, way out."""


class ConfigError(InputError):
    """A configuration value is unknown, of the wrong type, or impossible."""


class StageError(Exception):
    """A stage stopped for a reason it can name in one line, such as a loss that is not finite."""


class NotFiniteError(StageError):
    """A loss or metric is not finite: building it again would end the same way."""
