"""The variables and settings of W&B that may reach a run: the account and the connection.

W&B reads ids, names, notes, tags, sweeps and whole configurations from variables and files that
may be meant for other runs. This module lists what it may read and hides everything else.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from namd.config.errors import InputError

VARIABLES = frozenset(
    f"WANDB_{name}"
    for name in (
        # The account.
        *("API_KEY", "IDENTITY_TOKEN_FILE", "CREDENTIALS_FILE", "ENTITY", "ORGANIZATION"),
        *("BASE_URL", "APP_URL", "PROJECT", "MODE"),
        # Folders of this machine, which stay on it.
        *("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR", "ARTIFACT_DIR"),
        # The connection, and how much is printed locally.
        *("HTTP_PROXY", "HTTPS_PROXY", "INSECURE_DISABLE_SSL", "HTTP_TIMEOUT", "INIT_TIMEOUT"),
        *("FILE_PUSHER_TIMEOUT", "LOGIN_TIMEOUT", "_EXTRA_HTTP_HEADERS", "_PROXIES"),
        *("ERROR_REPORTING", "SERVICE", "SERVICE_TRANSPORT", "_SERVICE_WAIT", "QUIET", "SILENT"),
    )
)
"""Variables that W&B may see."""

SETTINGS = frozenset(
    (
        *("api_key", "identity_token_file", "credentials_file", "entity", "organization"),
        *("base_url", "app_url_override", "settings_system"),
        *("http_proxy", "https_proxy", "insecure_disable_ssl", "login_timeout", "x_proxies"),
        *("x_extra_http_headers", "x_graphql_timeout_seconds", "x_file_transfer_timeout_seconds"),
        *("x_service_transport", "x_service_wait"),
    )
)
"""W&B's settings that may come from variables and W&B's own files instead of namd."""

PROJECT_LIMIT = 128
_NOT_IN_PROJECT = frozenset("/\\#?%:")


def hide_variables() -> dict[str, str]:
    """Remove from this process every variable that W&B may not see; return them."""
    names = [name for name in os.environ if name.startswith("WANDB_") and name not in VARIABLES]
    return {name: os.environ.pop(name) for name in names}


def require_project(name: str) -> str:
    """Return a project's name that W&B accepts. Raises InputError."""
    if len(name) <= PROJECT_LIMIT and _NOT_IN_PROJECT.isdisjoint(name):
        return name
    raise InputError(
        f"WANDB_PROJECT {name[:40]!r}: a project's name has at most {PROJECT_LIMIT} characters and "
        f"none of {' '.join(sorted(_NOT_IN_PROJECT))}"
    )


@contextmanager
def account_settings_only() -> Iterator[None]:
    """Reduce W&B's settings of this process to SETTINGS while a run is started.

    Other code in this process may have loaded them before; they are restored afterwards.
    """
    from wandb.sdk import wandb_setup

    shared = wandb_setup.singleton()
    before, sweep = shared.settings, shared._sweep_config
    shared._settings, shared._sweep_config = _reduced(before), None
    try:
        yield
    finally:
        shared._settings, shared._sweep_config = before, sweep


def _reduced(settings: Any) -> Any:  # noqa: ANN401 - wandb is untyped
    import wandb

    kept = {name: getattr(settings, name) for name in settings.model_fields_set & SETTINGS}
    return wandb.Settings(**{name: value for name, value in kept.items() if value is not None})
