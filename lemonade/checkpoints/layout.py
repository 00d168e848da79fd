"""The hub cache on this disk, as huggingface-hub and everything built on it lays it out.

```
<cache>/models--owner--repo/
    blobs/<etag>                    contents, by the hub's name of them; <etag>.incomplete is half
    refs/main                       the active commit
    snapshots/<commit>/<path>       links to blobs, or real files where somebody put them
<cache>/.locks/models--owner--repo/<etag>.lock
<cache>/blobs/xx/<hash>             contents shared between repositories; blobs may link to them
```

Everything here looks, except `write_ref`. Nothing asks a hub. Blocks, for as long as it takes to
list a few small directories.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from lemonade.core.records import dataclass
from lemonade.planning.checkpoint import RepoFile

_PREFIXES: Final = {"modelscope": "modelscope--models"}
_UNFINISHED: Final = ".download_manifest.json"
"""Other versions of Lemonade leave it in a snapshot that is not complete, and `*.partial`."""


@dataclass(frozen=True, slots=True)
class RepoCache:
    """What the cache holds of one repository. It need not exist."""

    hub_cache: Path
    folder: str

    @classmethod
    def of(cls, hub_cache: Path, repository: str, source: str = "huggingface") -> RepoCache:
        """The place of `owner/repo` of a registry."""
        prefix = _PREFIXES.get(source, "models")
        return cls(hub_cache, "--".join([prefix, *repository.split("/")]))

    @property
    def root(self) -> Path:
        """The repository's own directory."""
        return self.hub_cache / self.folder

    @property
    def blobs(self) -> Path:
        """Where contents are."""
        return self.root / "blobs"

    def lock(self, etag: str) -> Path:
        """The lock that whoever fetches this content holds."""
        return self.hub_cache / ".locks" / self.folder / f"{etag}.lock"

    def snapshot(self, revision: str) -> Path:
        """Where the files of a commit are."""
        return self.root / "snapshots" / revision

    def active(self) -> Path | None:
        """The snapshot `refs/main` points to, if it is there and usable."""
        try:
            revision = (self.root / "refs" / "main").read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return None
        if not revision or "/" in revision or revision.startswith("."):
            return None
        snapshot = self.snapshot(revision)
        return snapshot if is_usable(snapshot) else None

    def usable(self) -> tuple[Path, ...]:
        """Snapshots that may be used, the active one first. None if none is active."""
        active = self.active()
        if active is None:
            return ()
        others = [path for path in self.snapshots() if path != active and is_usable(path)]
        return (active, *others)

    def snapshots(self) -> tuple[Path, ...]:
        """All snapshots, the youngest first."""
        try:
            with os.scandir(self.root / "snapshots") as entries:
                found = [(e.stat().st_mtime, Path(e.path)) for e in entries if e.is_dir()]
        except OSError:
            return ()
        return tuple(path for _, path in sorted(found, reverse=True))

    def incomplete(self) -> tuple[Path, ...]:
        """Contents that are half there, of whichever tool."""
        try:
            with os.scandir(self.blobs) as entries:
                return tuple(
                    Path(entry.path) for entry in entries if entry.name.endswith(".incomplete")
                )
        except OSError:
            return ()

    def write_ref(self, revision: str) -> None:
        """Make a commit the active one.

        Done last: a snapshot nobody refers to is not used, so a download that ends half way
        leaves the previous one in force.

        Raises:
            OSError: it cannot be written.
        """
        ref = self.root / "refs" / "main"
        ref.parent.mkdir(parents=True, exist_ok=True)
        temporary = ref.with_name(f"main.{secrets.token_hex(4)}.tmp")
        try:
            temporary.write_text(revision, encoding="utf-8")
            temporary.replace(ref)
        finally:
            temporary.unlink(missing_ok=True)


def is_usable(snapshot: Path) -> bool:
    """Whether it is a directory, and nobody says that it is not complete."""
    if not snapshot.is_dir() or (snapshot / _UNFINISHED).exists():
        return False
    return not any(
        name.endswith(".partial") for _, _, names in os.walk(snapshot) for name in names
    )


def files_in(directory: Path) -> tuple[RepoFile, ...]:
    """The files below a directory that are there: links that lead nowhere do not count."""
    found = []
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            try:
                size = path.stat().st_size
            except OSError:
                continue
            found.append(RepoFile(path.relative_to(directory).as_posix(), size))
    return tuple(sorted(found, key=lambda file: file.path))
