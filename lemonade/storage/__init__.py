"""Floor 1: what is kept on this disk. Directories, JSON documents and locks between processes."""

from lemonade.storage.documents import changing, read_json, write_json
from lemonade.storage.locks import FileLock
from lemonade.storage.paths import Directories, directories, expanded

__all__ = [
    "Directories", "FileLock", "changing", "directories", "expanded", "read_json", "write_json",
]  # fmt: skip
