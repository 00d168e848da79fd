"""What is asked of huggingface-hub, as blocking calls that raise what it raises.

Endpoint, token and cache go with every call, so that the process's environment does not matter.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from lemonade import __version__
from lemonade.checkpoints.access import HubAccess
from lemonade.checkpoints.direct import go_directly, needs_direct_way
from lemonade.checkpoints.failures import transport
from lemonade.checkpoints.patience import Patience
from lemonade.checkpoints.threads import StopSignal
from lemonade.core.errors import CheckpointError, HubUnreachable
from lemonade.planning.checkpoint import RepoFile, RepoListing

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoSibling

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")
"""What commits and contents may be called, as these become names in the cache."""

Report = Callable[[int, int], None]
"""Told how many bytes are here, and how many of them were before we began."""


class HubApi:
    """huggingface-hub, bound to one endpoint, token and cache."""

    def __init__(self, access: HubAccess, patience: Patience) -> None:
        self.access = access
        self.patience = patience
        self._entering = threading.Lock()
        self._entered = False

    def listing(self, repository: str) -> RepoListing:
        """The files of the main branch, at the commit it points to now."""
        api = self._api()
        try:
            info = api.model_info(
                repository, files_metadata=True, timeout=self.patience.answer_within
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise self._not_a_hub("its description of a repository cannot be read") from error
        except ValueError as error:
            if type(error).__module__.startswith("huggingface_hub"):
                raise
            raise self._not_a_hub("its answer is not JSON") from error
        if not info.sha or not _NAME.match(info.sha):
            raise self._not_a_hub(f"it does not say which commit of {repository} is current")
        files = tuple(_repo_file(sibling) for sibling in info.siblings or ())
        return RepoListing(repository, info.sha, tuple(f for f in files if _stays_inside(f.path)))

    def facts(self, listing: RepoListing, file: RepoFile) -> tuple[str, int]:
        """The hub's name of a file's content, and its size (0 if it does not say)."""
        facts = self._api().get_hf_file_metadata(
            url=self.url(listing, file.path), timeout=self.patience.answer_within
        )
        if not facts.etag or not _NAME.match(facts.etag):
            raise self._not_a_hub(f"it does not say what {file.path} contains")
        return (facts.etag, facts.size or file.size_bytes)

    def read(self, listing: RepoListing, path: str, largest: int, stop: StopSignal) -> bytes:
        """A small file's content.

        Raises:
            CheckpointError: it has more than `largest` bytes.
        """
        content = self._stream(listing, path, largest + 1, {}, stop)
        if len(content) > largest:
            raise CheckpointError(f"{path} of {listing.repository} is too large.")
        return content

    def beginning(self, listing: RepoListing, path: str, size: int, stop: StopSignal) -> bytes:
        """A file's first bytes, at most so many; a hub that sends all is hung up on."""
        asked = {"Range": f"bytes=0-{size - 1}"}
        return self._stream(listing, path, size, asked, stop)[:size]

    def _stream(
        self,
        listing: RepoListing,
        path: str,
        enough: int,
        more: Mapping[str, str],
        stop: StopSignal,
    ) -> bytes:
        """A file's content, until there is enough of it."""
        from huggingface_hub import get_session

        content = bytearray()
        with get_session().stream(
            "GET",
            self.url(listing, path),
            headers={**self.headers(), **more},
            timeout=self.patience.answer_within,
            follow_redirects=True,
        ) as response:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                stop.check()
                content += chunk
                if len(content) >= enough:
                    break
        return bytes(content)

    def link(self, listing: RepoListing, file: RepoFile, report: Report, stop: StopSignal) -> None:
        """Have huggingface-hub put the file into the snapshot of its commit.

        If the content is among the blobs it makes the link; otherwise it fetches it in one go.
        """
        from huggingface_hub import hf_hub_download

        self._api()
        hf_hub_download(
            listing.repository,
            file.path,
            revision=listing.revision,
            cache_dir=self.access.cache_dir,
            endpoint=self.access.endpoint,
            token=self.access.token,
            library_name="lemonade",
            library_version=__version__,
            etag_timeout=self.patience.answer_within,
            tqdm_class=_bar(report, stop),
        )

    def url(self, listing: RepoListing, path: str) -> str:
        """Where the file can be fetched."""
        from huggingface_hub import hf_hub_url

        return hf_hub_url(
            listing.repository, path, revision=listing.revision, endpoint=self.access.endpoint
        )

    def headers(self) -> dict[str, str]:
        """What goes with every request: who asks, and the token."""
        self._api()
        # Documented as public; only its types do not say so.
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        headers: dict[str, str] = build_hf_headers(
            token=self.access.token, library_name="lemonade", library_version=__version__
        )
        return headers

    def _api(self) -> HfApi:
        from huggingface_hub import HfApi, constants

        # A private server tells nobody what it runs on. And huggingface-hub would ask the public
        # hub for the list of what to tell: a request that nobody made.
        constants.HF_HUB_DISABLE_TELEMETRY = True
        # At INFO it logs every address, and those of contents are as good as a key.
        logging.getLogger(transport().__name__).setLevel(logging.WARNING)
        with self._entering:
            if not self._entered and needs_direct_way(self.access.endpoint):
                go_directly(self.access.endpoint)
            self._entered = True
        return HfApi(
            endpoint=self.access.endpoint,
            token=self.access.token,
            library_name="lemonade",
            library_version=__version__,
        )

    def _not_a_hub(self, why: str) -> HubUnreachable:
        return HubUnreachable(
            f"{self.access.endpoint} does not answer like a hub: {why}.",
            remedy="Check HF_ENDPOINT.",
            facts={"endpoint": self.access.endpoint},
        )


def _repo_file(sibling: RepoSibling) -> RepoFile:
    lfs = sibling.lfs
    return RepoFile(
        path=sibling.rfilename,
        size_bytes=(lfs.size if lfs is not None else None) or sibling.size or 0,
        sha256=lfs.sha256 if lfs is not None else None,
        blob_id=sibling.blob_id or "",
    )


def _stays_inside(path: str) -> bool:
    """Whether a path from a listing may become one in the cache."""
    parts = PurePosixPath(path).parts
    return bool(parts) and ".." not in parts and parts[0] != "/" and "\\" not in path


def _bar(report: Report, stop: StopSignal) -> type[Any]:
    """A progress bar as huggingface-hub makes them, that tells us and can be stopped."""

    class Bar:
        def __init__(self, *_: object, initial: float = 0, **__: object) -> None:
            self._have = int(initial)

        def __enter__(self) -> Self:
            return self

        def __exit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None:
            self.close()

        def update(self, count: float | None = 1) -> None:
            stop.check()
            self._have += int(count or 0)
            report(self._have, 0)

        def close(self) -> None:
            """Nothing is shown, so nothing has to go."""

    return Bar
