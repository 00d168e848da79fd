"""The Hugging Face hub behind one door: what a repository holds, and its files in the cache.

Asynchronous: the work is done in a bounded number of threads. Whatever huggingface-hub raises
leaves this room as one of our errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from lemonade.checkpoints.access import AUTO, hub_access
from lemonade.checkpoints.failures import in_our_words
from lemonade.checkpoints.hub_api import HubApi, Report
from lemonade.checkpoints.patience import Patience, patiently
from lemonade.checkpoints.placing import place
from lemonade.checkpoints.threads import Latest, StopSignal, Workers
from lemonade.core.errors import Offline
from lemonade.planning.checkpoint import RepoFile, RepoListing

T = TypeVar("T")


class Hub:
    """The hub, and this machine's cache of it. Lives as long as the server; ended by `close`."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        models_dir: str = AUTO,
        offline: Callable[[], bool] = lambda: False,
        patience: Patience | None = None,
    ) -> None:
        """Nothing is asked yet.

        Args:
            environ: where `HF_ENDPOINT`, `HF_TOKEN` and the like are looked up.
            models_dir: a path for the cache, or `auto`.
            offline: whether the operator switched the network off; asked before every question.
            patience: how long we put up with a hub.
        """
        self.access = hub_access(environ, models_dir)
        self._api = HubApi(self.access, patience or Patience())
        self._offline = offline
        # Questions are short and must not wait behind transfers, which are long.
        self._questions = Workers("hub-question", 4)
        self._transfers = Workers("hub-transfer", 4)

    @property
    def cache_dir(self) -> Path:
        """The hub cache."""
        return self.access.cache_dir

    async def listing(self, repository: str) -> RepoListing:
        """The files of the repository's main branch, at the commit it points to now.

        Raises:
            Offline, HubUnreachable, NotInRepository, GatedRepository: it cannot be had.
        """
        return await self._ask(repository, lambda _: self._api.listing(repository))

    async def read(self, listing: RepoListing, path: str, largest: int) -> bytes:
        """A small file's content, without keeping it.

        Raises:
            Offline, HubUnreachable, NotInRepository, GatedRepository: it cannot be had.
            CheckpointError: it has more than `largest` bytes.
        """
        return await self._ask(
            listing.repository, lambda stop: self._api.read(listing, path, largest, stop)
        )

    async def beginning(self, listing: RepoListing, path: str, size: int) -> bytes:
        """A file's first bytes, at most so many, without keeping them.

        Raises:
            Offline, HubUnreachable, NotInRepository, GatedRepository: they cannot be had.
        """
        return await self._ask(
            listing.repository, lambda stop: self._api.beginning(listing, path, size, stop)
        )

    async def fetch(self, listing: RepoListing, file: RepoFile, report: Report) -> Path:
        """Have a file complete in the snapshot of the listing's commit.

        What is there is kept if it has the right size and, for GGUF, the right beginning.
        Cancelling stops the transfer; what came so far is used by the next try.

        Args:
            listing: of the file's repository.
            file: one of its files.
            report: called on the event loop with bytes here, and bytes here before.

        Returns:
            Where it is.

        Raises:
            CheckpointError: it cannot be had, or what came is damaged.
        """
        self._check_online(listing.repository)
        latest = Latest[tuple[int, int]](lambda seen: report(*seen))

        def work(stop: StopSignal) -> Path:
            def tell(here: int, before: int) -> None:
                latest((here, before))

            return self._in_our_words(
                listing.repository, lambda: place(self._api, listing, file, tell, stop)
            )

        return await self._transfers.run(work, hold=True)

    def close(self) -> None:
        """Stop whatever still runs."""
        self._questions.stop()
        self._transfers.stop()

    async def _ask(self, repository: str, question: Callable[[StopSignal], T]) -> T:
        self._check_online(repository)

        def work(stop: StopSignal) -> T:
            return self._in_our_words(
                repository,
                lambda: patiently(lambda: question(stop), stop, self._api.patience, question=True),
            )

        return await self._questions.run(work)

    def _in_our_words(self, repository: str, work: Callable[[], T]) -> T:
        try:
            return work()
        except Exception as error:
            ours = in_our_words(error, repository, self.access.endpoint)
            if ours is None or ours is error:
                raise
            raise ours from error

    def _check_online(self, repository: str) -> None:
        if self._offline():
            raise Offline(
                f"{repository} cannot be asked for: the server is offline.",
                remedy="`lemonade config set offline=false` allows the network again.",
                facts={"repository": repository},
            )
