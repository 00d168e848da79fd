"""One run of the command line: which server, with which key, at which terminal.

Made once by the outermost command and handed down by click. It imports the client when somebody
first asks for it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from lemonade.core.records import dataclass

if TYPE_CHECKING:
    from lemonade.client import Address, LemonadeClient


@dataclass(slots=True)
class Session:
    """What the global options said; None where they said nothing."""

    host: str | None = None
    port: int | None = None
    api_key: str | None = None

    def address(self) -> Address:
        """Where the server is.

        Raises:
            BadSetting: an option or a variable does not name a server.
        """
        from lemonade.client import resolve_address

        return resolve_address(self.host, self.port, os.environ)

    def client(self) -> LemonadeClient:
        """A conversation with that server; closed when the command is over."""
        return self.client_at(self.address().url)

    def client_at(self, url: str) -> LemonadeClient:
        """The same for a server whose address is known."""
        from lemonade.client import LemonadeClient, resolve_key

        client = LemonadeClient(url, resolve_key(self.api_key, os.environ))
        if (context := click.get_current_context(silent=True)) is not None:
            context.call_on_close(client.close)
        return client


pass_session = click.make_pass_decorator(Session, ensure=True)
