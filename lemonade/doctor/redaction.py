"""Takes secrets, and who somebody is, out of what leaves this machine.

Three nets, one behind the other. Secrets that are known here (values of variables, files and
settings that hold one) are taken out wherever they occur. What looks like a secret by its form is
taken out whosever it is. And in documents a value goes if its key says that it is a secret. Rather
too much is taken than too little.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

REDACTED: Final = "[redacted]"
_HOME: Final = "~"
_USER: Final = "[user]"
_SHORTEST: Final = 4
"""Shorter secrets are taken out by their key or form only, or half of every text would go."""

_COMMON_NAMES: Final = frozenset({"root", "lemonade", "user", "admin", "nobody", "models"})
"""Names of users that say nothing, and that are words of other meaning too."""

_SECRET_NAME: Final = re.compile(
    r"key(?!s?_?file|word|board)|token(?!s\b|iz|_limit)|secret|passw(?:or)?d|passphrase|"
    r"credential|authorization|cookie|bearer",
    re.IGNORECASE,
)
_WHOLE_SECTIONS: Final = frozenset({"headers"})
"""Objects all of whose values are taken for secrets."""

_URL: Final = re.compile(r"""(\b[A-Za-z][A-Za-z0-9+.-]*://)[^/\s"'<>]*@""")
_IN_URL: Final = re.compile(
    r"""([?&;](?:[\w.-]*(?:token|key|secret|password|signature|credential)[\w.-]*|sig)=)"""
    r"""[^&\s"'<>]+""",
    re.IGNORECASE,
)
_SCHEME: Final = re.compile(r"\b(Bearer|Basic|Digest)(\s+)[\w.~+/=:-]{3,}", re.IGNORECASE)
_VALUE: Final = r"""(?:\\?"[^"\\]*\\?"|'[^']*'|(?!\[redacted\])[^\s"',;}\]\\]+)"""
"""Quoted, or up to the next blank; not what has been taken out already."""

_FLAG: Final = re.compile(
    r"""(?<![\w-])(--?[\w-]*(?:key|token|password|passwd|secret)["']?(?:\s*[=,]\s*|\s+))"""
    + _VALUE,
    re.IGNORECASE,
)
_ASSIGNED: Final = re.compile(
    r"""((?:api[_-]?key|access[_-]?key|secret[_-]?key|auth[_-]?key|\w*token|\w*password|passwd|"""
    r"""\w*secret)\\?["']?\s*[=:]\s*)""" + _VALUE,
    re.IGNORECASE,
)
_FORMS: Final = re.compile(
    r"hf_[A-Za-z0-9]{6,}|gh[pousr]_[A-Za-z0-9]{6,}|github_pat_\w{6,}|glpat-[\w-]{6,}"
    r"|sk-[A-Za-z0-9_-]{6,}|xox[abprs]-[\w-]{6,}|nvapi-[\w-]{6,}|ms-[0-9a-f-]{30,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{30,}|eyJ[\w-]+\.[\w-]+(?:\.[\w-]+)?"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)


class Redactor:
    """Knows the secrets of one machine. Made for one archive, and forgotten with it."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        homes: Sequence[str] = (),
        user: str = "",
        documents: Iterable[object] = (),
        secret_files: Iterable[Path] = (),
    ) -> None:
        """Collect what is known. Blocks: reads the files.

        Args:
            environ: variables; the values of those that are named like secrets are secret.
            homes: paths of the user's home directory.
            user: the name.
            documents: JSON values; what stands under keys that are named like secrets is secret.
            secret_files: every word of them is secret.
        """
        known = {value for name, value in environ.items() if is_secret_name(name)}
        for value in environ.values():
            known.update(_passwords(value))
        for document in documents:
            known.update(_secrets_in(document))
        for path in secret_files:
            known.update(_words(path))
        spelled = {form for secret in known if secret for form in _spellings(secret.strip())}
        longest_first = sorted((s for s in spelled if len(s) >= _SHORTEST), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if spelled else None
        if not longest_first:
            self._known = None
        roots = sorted({h.rstrip("/") for h in homes if h.rstrip("/")}, key=len, reverse=True)
        self._homes = (
            re.compile(rf"(?:{'|'.join(map(re.escape, roots))})(?![\w.-])") if roots else None
        )
        telling = len(user) > 2 and user not in _COMMON_NAMES
        self._user = re.compile(rf"(?<![\w]){re.escape(user)}(?![\w])") if telling else None

    def text(self, text: str) -> str:
        """The text without secrets."""
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        text = _FORMS.sub(REDACTED, text)
        text = _URL.sub(rf"\1{REDACTED}@", text)
        text = _IN_URL.sub(rf"\1{REDACTED}", text)
        text = _SCHEME.sub(rf"\1\2{REDACTED}", text)
        text = _FLAG.sub(rf"\1{REDACTED}", text)
        text = _ASSIGNED.sub(rf"\1{REDACTED}", text)
        if self._homes is not None:
            text = self._homes.sub(_HOME, text)
        return self._user.sub(_USER, text) if self._user is not None else text

    def value(self, value: Any) -> Any:  # noqa: ANN401 - any JSON value
        """A JSON value without secrets; numbers and booleans stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(k)): self._entry(str(k), item) for k, item in value.items()}
        if isinstance(value, (list, tuple)):
            return (
                self.argv([str(item) for item in value])
                if _is_argv(value)
                else [self.value(item) for item in value]
            )
        return value

    def argv(self, words: Sequence[str]) -> list[str]:
        """A command line without secrets, those in a word of their own included."""
        kept: list[str] = []
        hide = False
        for word in words:
            kept.append(REDACTED if hide else self.text(word))
            hide = word.startswith("-") and "=" not in word and is_secret_name(word)
        return kept

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Variables, with their values only where those are no secrets."""
        return {name: self._entry(name, value) for name, value in sorted(environ.items())}

    def _entry(self, key: str, item: Any) -> Any:  # noqa: ANN401 - any JSON value
        if key.lower() in _WHOLE_SECTIONS and isinstance(item, Mapping):
            return {self.text(str(name)): REDACTED for name in item}
        if is_secret_name(key) and isinstance(item, str) and item:
            return REDACTED
        return self.value(item)


def is_secret_name(name: str) -> bool:
    """Whether a variable, a key or a flag of that name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def _is_argv(value: Sequence[Any]) -> bool:
    return bool(value) and all(isinstance(item, str) for item in value)


def _passwords(value: str) -> Iterator[str]:
    """User and password of a URL, whatever characters are in them."""
    scheme, separator, rest = value.partition("://")
    if separator and "@" in rest and " " not in scheme:
        pair = rest.rpartition("@")[0]
        yield pair
        _, colon, password = pair.partition(":")
        if colon:
            yield password
    try:
        found = urlsplit(value).password
    except ValueError:
        return
    if found:
        yield found


def _secrets_in(document: object, *, all_of_it: bool = False) -> Iterator[str]:
    if isinstance(document, Mapping):
        for key, item in document.items():
            secret = all_of_it or is_secret_name(str(key)) or str(key).lower() in _WHOLE_SECTIONS
            yield from _secrets_in(item, all_of_it=secret)
    elif isinstance(document, (list, tuple)):
        for item in document:
            yield from _secrets_in(item, all_of_it=all_of_it)
    elif isinstance(document, str):
        yield from _passwords(document)
        if all_of_it:
            yield document


def _words(path: Path) -> list[str]:
    try:
        return [word for word in path.read_text(errors="replace").split() if len(word) > 7]
    except OSError:
        return []


def _spellings(secret: str) -> set[str]:
    """The secret as it is, as URLs write it, and as JSON does."""
    return {secret, quote(secret, safe=""), unquote(secret), json.dumps(secret)[1:-1]}
