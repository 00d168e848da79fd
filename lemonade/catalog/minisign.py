"""Signatures in the format of the tool `minisign`: reading a key, and judging a file by one.

A signature file has four lines: a comment nobody vouches for, the signature of the file (its
algorithm, the key's id, 64 bytes), a trusted comment, and a signature of the first one together
with that comment. The algorithm `Ed` signs the file itself, `ED` its BLAKE2b digest. Source: the
"Signature format" of minisign's manual. The library with the curve is imported when there is
something to judge.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from lemonade.core.records import dataclass

_UNTRUSTED: Final = "untrusted comment:"
_TRUSTED: Final = "trusted comment: "
_KEY_BYTES: Final = 2 + 8 + 32
_SIGNATURE_BYTES: Final = 2 + 8 + 64
_LINES: Final = 4


class BadSignature(ValueError):
    """The signature is not one, or not of this file; the text says why, without an end."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What signatures are judged by.

    Attributes:
        id: eight bytes, by which signatures name their key.
        public: the point on the curve.
    """

    id: bytes
    public: bytes

    @property
    def name(self) -> str:
        """As minisign shows it."""
        return key_name(self.id)


@dataclass(frozen=True, slots=True)
class Signature:
    """The content of a `.minisig`.

    Attributes:
        hashed: whether the file's digest was signed instead of the file.
        key_id: of the key it names; anybody may have written that.
        of_file: the first signature.
        comment: the trusted comment, as bytes.
        of_comment: the signature of both.
    """

    hashed: bool
    key_id: bytes
    of_file: bytes
    comment: bytes
    of_comment: bytes

    @property
    def key_name(self) -> str:
        """The name of the key it says it was made with."""
        return key_name(self.key_id)


def key_name(key_id: bytes) -> str:
    """A key's id as minisign prints it."""
    return key_id[::-1].hex().upper()


def read_key(line: str) -> PublicKey:
    """A public key from its one line of text.

    Raises:
        ValueError: it is none; the text says why.
    """
    try:
        raw = base64.b64decode(line.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("it is not base64") from error
    if len(raw) != _KEY_BYTES:
        raise ValueError(f"a public key of minisign has {_KEY_BYTES} bytes, and it has {len(raw)}")
    if raw[:2] != b"Ed":
        raise ValueError("it is not of the algorithm Ed25519")
    return PublicKey(id=raw[2:10], public=raw[10:])


def is_comment(line: str) -> bool:
    """Whether a line of a file of keys says something to people only."""
    line = line.strip()
    return not line or line.startswith(("#", _UNTRUSTED))


def read_signature(content: bytes) -> Signature:
    """The content of a `.minisig`.

    Raises:
        BadSignature: it is not in that format.
    """
    try:
        lines = [line.removesuffix("\r") for line in content.decode("utf-8").split("\n")]
    except UnicodeDecodeError as error:
        raise BadSignature("it is not a text") from error
    while lines and not lines[-1]:
        lines.pop()
    if len(lines) != _LINES:
        raise BadSignature(f"a signature of minisign has {_LINES} lines, and it has {len(lines)}")
    if not lines[0].startswith(_UNTRUSTED):
        raise BadSignature("its first line is not an untrusted comment")
    if not lines[2].startswith(_TRUSTED):
        raise BadSignature("its third line is not a trusted comment")
    first = _decoded(lines[1], _SIGNATURE_BYTES, "second")
    algorithm = first[:2]
    if algorithm not in (b"Ed", b"ED"):
        raise BadSignature("its algorithm is unknown")
    return Signature(
        hashed=algorithm == b"ED",
        key_id=first[2:10],
        of_file=first[10:],
        comment=lines[2].removeprefix(_TRUSTED).encode(),
        of_comment=_decoded(lines[3], 64, "fourth"),
    )


def verify(key: PublicKey, signature: Signature, content: bytes) -> None:
    """Look whether the holder of the key signed the content, and the comment with it.

    Raises:
        BadSignature: they did not.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    public = Ed25519PublicKey.from_public_bytes(key.public)
    signed = hashlib.blake2b(content).digest() if signature.hashed else content
    try:
        public.verify(signature.of_file, signed)
    except InvalidSignature:
        raise BadSignature("it is not of this content") from None
    try:
        public.verify(signature.of_comment, signature.of_file + signature.comment)
    except InvalidSignature:
        raise BadSignature("its trusted comment was changed") from None


def _decoded(line: str, length: int, which: str) -> bytes:
    try:
        raw = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadSignature(f"its {which} line is not base64") from error
    if len(raw) != length:
        raise BadSignature(f"its {which} line has {len(raw)} bytes instead of {length}")
    return raw
