"""Whether a file may leave this machine, judged by its name and all of its bytes.

A study needs only text: sources, YAML, JSON, at most a small table. So every binary file is
refused, and text that looks like a key, a password, or an image encoded as text.
"""

import pickletools
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

SECRET_NAMES = (
    *(".env", ".env.*", ".envrc", ".netrc", "_netrc", ".pgpass", ".npmrc", ".pypirc", ".boto"),
    *(".s3cfg", ".dockercfg", ".dockerconfigjson", ".htpasswd", ".git-credentials", "auth_token"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "kubeconfig*", "*.kubeconfig"),
    *("credentials", "credentials.*", "*_credentials.json", "client_secret*", "secrets.*"),
    *("service-account*.json", "service_account*.json", "*.tfstate", "*.tfvars"),
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.ppk", "*.kdbx", "*.ovpn"),
)
"""File names of keys and passwords, in lower case."""

SECRET_FOLDERS = frozenset({".ssh", ".aws", ".kube", ".docker", ".gnupg", ".azure", ".git", ".ray"})
"""Folders of keys and passwords, or, like git's, of everything that was ever deleted."""

DATA_SUFFIXES = {
    "a medical image": "dcm dicom ima nii nii.gz img hdr nrrd nhdr mha mhd mnc raw gii tif tiff",
    "arrays": "npy npz h5 hdf5 hdf mat zarr parquet feather arrow",
    "weights": "pt pth ckpt safetensors bin onnx pb gguf",
    "a pickle": "pkl pickle joblib",
    "a picture": "png jpg jpeg bmp gif webp",
    "a database": "sqlite sqlite3 db duckdb",
    "an archive": "zip tar gz tgz bz2 xz zst 7z",
}
"""Suffixes of data files, by kind: such a file is refused even if it is empty."""

_BINARY = (
    (128, b"DICM", "DICOM"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"PAR1", "Parquet"),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5"),
    (0, b"PK\x03\x04", "a zip archive: npz, a torch checkpoint, a workbook"),
    (0, b"\x1f\x8b", "compressed with gzip"),
    (344, b"n+1\0", "NIfTI"),
    (344, b"ni1\0", "NIfTI"),
    (4, b"n+2\0", "NIfTI"),
    (0, b"NRRD000", "NRRD"),
    (0, b"SQLite format 3\0", "a database"),
    (0, b"\x89PNG", "a picture"),
    (0, b"\xff\xd8\xff", "a picture"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"ARROW1", "Arrow"),
    (0, b"MATLAB 5.0", "MATLAB arrays"),
    (0, b"\x80\x02", "a pickle or a torch checkpoint"),
    (0, b"\x80\x03", "a pickle"),
    (0, b"\x80\x04", "a pickle"),
    (0, b"\x80\x05", "a pickle"),
)
"""(Offset, bytes, meaning): only for the message, since nothing binary is sent anyway."""

_DICOM_GROUPS = (b"\x08\x00", b"\x02\x00", b"\x00\x08", b"\x00\x02")
"""How DICOM without a preamble begins: the first element's group, in either byte order."""

_SAFETENSORS = re.compile(rb'.{8}\{\s*"', re.DOTALL)

_SECRETS = (
    ("a private key", r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY"),
    ("a private key", r"\APuTTY-User-Key-File-"),
    ("a private key", r"\"private_key\"\s*:"),
    ("a kubeconfig", r"(?ms)^kind:\s*Config\b.*^users:|^users:.*^kind:\s*Config\b"),
    ("a kubeconfig", r"client-key-data\s*:|\"client-key-data\""),
    (
        "a password or key",
        r"(?i)\b(?:aws_secret_access_key|aws_session_token|client_secret|refresh_token)\b"
        r"[\"']?\s*[:=]\s*[\"']?[^\s\"']{8}",
    ),
    (
        "a password or key",
        r"(?im)^\s*(?:export\s+)?[A-Z0-9_]*(?:API_?KEY|TOKEN|SECRET|PASSWORD|PASSWD)[A-Z0-9_]*"
        r"\s*=\s*[\"']?[\w+/=.~!@#%^&*-]{8,}[\"']?\s*$",
    ),
    (
        "a password or key",
        r"(?im)^\s*(?:[a-z0-9-]+_)*(?:api_?key|token|secret|password|passwd)\s*:\s*"
        r"(?=\S*\d)[\w+/=.~!@#%^&*-]{8,}\s*$",
    ),
    (
        "a password or key",
        r"(?i)\"(?:[a-z0-9]+_)*(?:api_?key|token|secret|password|passwd)\"\s*:\s*\"[^\s\"]{8,}\"",
    ),
    ("a password or key", r"(?m)^\s*machine\s+\S+\s+login\s+\S+\s+password\s+\S+"),
    (
        "a password in a URL",
        r"(?i)\b[a-z][a-z0-9+.-]{0,30}://[^\s/:@'\"{}]+:[^\s/:@'\"{}]+@[\w.-]+",
    ),
    ("an access key", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    ("an access key", r"\b(?:gh[pousr]_|github_pat_|glpat-|hf_|sk-|xox[abprs]-)[\w-]{20,}"),
)
_DATA = (
    ("an image as text (NRRD)", r"\ANRRD000"),
    ("an image as text (MetaImage)", r"(?m)^ElementDataFile\s*="),
    ("DICOM as text", r"\"0010[0-9A-Fa-f]{4}\"\s*:\s*\{|\(0010,\s?[0-9A-Fa-f]{4}\)"),
    ("data encoded as text", r"[A-Za-z0-9+/=]{2048}|[0-9A-Fa-f]{1024}"),
)
_SECRET_PATTERNS = tuple((what, re.compile(pattern)) for what, pattern in _SECRETS)
_DATA_PATTERNS = tuple((what, re.compile(pattern)) for what, pattern in _DATA)

_SHORTEST_PICKLE = 8


def refusal(path: PurePosixPath, data: bytes) -> str | None:
    """Return why a file must not be sent, in a few words; None if it may."""
    return _by_name(path) or _by_bytes(data)


def secret_in(text: str) -> str | None:
    """Return the kind of key or password that a text seems to contain, if any."""
    return _first_match(text, _SECRET_PATTERNS)


def _first_match(text: str, patterns: Sequence[tuple[str, re.Pattern[str]]]) -> str | None:
    return next((what for what, pattern in patterns if pattern.search(text)), None)


def _by_name(path: PurePosixPath) -> str | None:
    name = path.name.casefold()
    if not SECRET_FOLDERS.isdisjoint(part.casefold() for part in path.parts[:-1]):
        return "in a folder of keys and passwords"
    if not name.endswith(".pub") and any(fnmatchcase(name, mark) for mark in SECRET_NAMES):
        return "by its name a key or a password"
    for what, suffixes in DATA_SUFFIXES.items():
        if any(name.endswith(f".{suffix}") for suffix in suffixes.split()):
            return f"by its name {what}"
    return None


def _by_bytes(data: bytes) -> str | None:
    for offset, mark, what in _BINARY:
        if data.startswith(mark, offset):
            return what
    text = _text_of(data)
    if text is None:
        if data.startswith(_DICOM_GROUPS):
            return "DICOM without a preamble, or another binary file"
        return "safetensors" if _SAFETENSORS.match(data) else "not text"
    reason = secret_in(text) or _first_match(text, _DATA_PATTERNS)
    return "a pickle" if reason is None and _is_pickle(data) else reason


def _text_of(data: bytes) -> str | None:
    """Return the text; None if it is not UTF-8 or contains control characters."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", text) else text


def _is_pickle(data: bytes) -> bool:
    """Whether a text is a pickle of protocol 0, whose opcodes are letters; executes none."""
    stripped = data.strip()
    if len(stripped) < _SHORTEST_PICKLE or not stripped.endswith(b"."):
        return False
    try:
        for _, _, position in pickletools.genops(stripped):
            last = position
    except (ValueError, IndexError, OverflowError):
        return False
    return last == len(stripped) - 1
