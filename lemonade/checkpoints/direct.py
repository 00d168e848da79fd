"""A hub on this machine is asked directly, whatever proxy the environment names for the world.

huggingface-hub's HTTP library takes the proxies of the environment for every address that
`NO_PROXY` does not list, this machine's own too, and no proxy can reach those. What such a hub
redirects to may be anywhere, and goes through the proxy as before.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies

from lemonade.checkpoints.failures import transport

_LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")


def needs_direct_way(endpoint: str) -> bool:
    """Whether the hub is on this machine and a proxy is set."""
    try:
        host = urlsplit(endpoint).hostname or ""
    except ValueError:  # it is no address; whoever asks there is told
        return False
    here = host in ("localhost", "::1") or host.startswith("127.")
    return here and any(getproxies().get(kind) for kind in ("http", "https", "all"))


def go_directly(endpoint: str) -> None:
    """Have huggingface-hub's session make an exception. Ends the session there is."""
    from huggingface_hub import set_client_factory

    set_client_factory(_client_factory(transport(), urlsplit(endpoint).hostname or ""))


def _client_factory(http: ModuleType, host: str) -> Callable[[], Any]:
    hosts = dict.fromkeys((*_LOOPBACK, f"[{host}]" if ":" in host else host))

    def make() -> Any:  # noqa: ANN401 - a client of whichever library it is
        return http.Client(
            event_hooks={"request": _hooks()},
            mounts={f"all://{name}": None for name in hosts},
            follow_redirects=True,
            timeout=None,
        )

    return make


def _hooks() -> list[Callable[..., object]]:
    try:
        # What its own client has; there is no public way to it. It keeps HF_HUB_OFFLINE.
        from huggingface_hub.utils._http import hf_request_event_hook
    except ImportError:
        return []
    return [hf_request_event_hook]
