"""Floor 4: the server's HTTP interface as Python calls.

The command line uses it, and so may anyone else. It blocks: one call is one request, and a stream
is an iterator whose connection is closed when the iterator is. It knows nothing of the server's
inside.
"""

from lemonade.client.address import Address, resolve_address, resolve_key
from lemonade.client.calls import LemonadeClient
from lemonade.client.streams import ChatDelta

__all__ = ["Address", "ChatDelta", "LemonadeClient", "resolve_address", "resolve_key"]
