"""A holder of a key who signs as `minisign -S` does: with real signatures, in its format."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

COMMENT = "timestamp:1795258583\tfile:brew-cpu.toml\thashed"


class Signer:
    """A key pair; its id is eight bytes of the caller's choice."""

    def __init__(self, key_id: bytes = b"\x01\x02\x03\x04\x05\x06\x07\x08") -> None:
        self.key_id = key_id
        self._key = Ed25519PrivateKey.generate()

    @property
    def line(self) -> str:
        """The public key, as it stands in a file of keys."""
        public = self._key.public_key().public_bytes_raw()
        return base64.b64encode(b"Ed" + self.key_id + public).decode()

    @property
    def pub_file(self) -> str:
        """The content of `minisign.pub`."""
        return f"untrusted comment: minisign public key 0807060504030201\n{self.line}\n"

    def sign(self, path: Path, *, legacy: bool = False, comment: str = COMMENT) -> Path:
        """Write the signature of a file beside it."""
        content = path.read_bytes()
        algorithm = b"Ed" if legacy else b"ED"
        signature = self._key.sign(content if legacy else hashlib.blake2b(content).digest())
        lines = (
            "untrusted comment: signature from minisign secret key",
            base64.b64encode(algorithm + self.key_id + signature).decode(),
            f"trusted comment: {comment}",
            base64.b64encode(self._key.sign(signature + comment.encode())).decode(),
        )
        beside = path.with_name(f"{path.name}.minisig")
        beside.write_text("\n".join(lines) + "\n")
        return beside
