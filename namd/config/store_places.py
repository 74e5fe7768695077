"""Folders and URLs of stores, checked by their text only."""

import re

from namd.config.errors import InputError


def require_place(url: str) -> None:
    """Refuse a URL with a slash too few, which would be made as a folder. Raises InputError."""
    slip = re.match(r"(s3a?):/*(?=[^/])", url)
    if slip and "://" not in url:
        way = f"{slip[1]}://{url[slip.end() :]}"
        raise InputError(f"store {url}: neither a folder nor a URL; did you mean {way}?")
