"""Requests for models that are loaded, from a client's bytes to an engine's and back.

Knows connections, heads of requests and how a loaded model wants to be asked, but no catalog, no
web framework and nobody who loads models: so little has to be imported for it that processes
beside the server can do it too.
"""

from lemonade.relay.client import Answer, Client, Helper, Phase
from lemonade.relay.counting import Accounts, Over, finished
from lemonade.relay.crew import Crew
from lemonade.relay.entrance import MAX_BODY_BYTES, PREFIXES, Entrance, Entry
from lemonade.relay.exchange import Chance, Exchange, Patience, see_through
from lemonade.relay.fitting import adapt, fit_now
from lemonade.relay.handing import Taker, read_rest
from lemonade.relay.messages import (
    Anew,
    Ask,
    Channel,
    Cleared,
    End,
    Explained,
    Finished,
    FromWorker,
    Granted,
    GrantedLimits,
    GrantedManner,
    GrantedRecipe,
    Logged,
    Message,
    Moved,
    Named,
    Ping,
    Pong,
    Puzzled,
    Ready,
    Refused,
    Settings,
    Use,
    Welcome,
    Withdrawn,
)
from lemonade.relay.reading import RequestHead, Verdict, read_head
from lemonade.relay.reception import BACKLOG, Reception
from lemonade.relay.target import Right, Target
from lemonade.relay.waiting import Prelude
from lemonade.relay.welcome import REQUEST_ID, RequestIds, check_origin

__all__ = [
    "BACKLOG", "MAX_BODY_BYTES", "PREFIXES", "REQUEST_ID", "Accounts", "Anew", "Answer", "Ask",
    "Chance", "Channel", "Cleared", "Client", "Crew", "End", "Entrance", "Entry", "Exchange",
    "Explained", "Finished", "FromWorker", "Granted", "GrantedLimits", "GrantedManner",
    "GrantedRecipe", "Helper", "Logged", "Message", "Moved", "Named", "Over", "Patience",
    "Phase", "Ping", "Pong", "Prelude", "Puzzled", "Ready", "Reception", "Refused",
    "RequestHead", "RequestIds", "Right", "Settings", "Taker", "Target", "Use", "Verdict",
    "Welcome", "Withdrawn", "adapt", "check_origin", "finished", "fit_now", "read_head",
    "read_rest", "see_through",
]  # fmt: skip
