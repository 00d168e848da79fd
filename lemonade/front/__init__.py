"""The listening sockets: what can be relayed at once is relayed here, the rest is handed over.

One port serves everything. For each accepted connection `relay` reads where a request begins and
ends. A complete request for a model that is loaded goes to its engine, and the answer comes back,
without a task and without another look at the bytes; whatever else a client wants goes to
aiohttp, unchanged. What two readers could understand in two ways is refused before either acts.
"""

from lemonade.front.listener import Listener
from lemonade.front.sockets import adopted, bind
from lemonade.front.workers import Workers

__all__ = ["Listener", "Workers", "adopted", "bind"]
