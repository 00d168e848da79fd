"""`LemonadeClient`: one method for each thing the server can be asked.

Proxies, `.netrc` and other ambient settings are not looked at: a server on this machine must be
reachable whatever the environment says, and only our own key may go to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

import requests

from lemonade.client.replies import refusal
from lemonade.client.streams import ChatDelta, read_answer, read_chat, read_result, read_transfer
from lemonade.core.errors import ConnectionLost, NotAuthorised, ServerUnreachable
from lemonade.core.inference import JsonObject
from lemonade.core.progress import Progress, ProgressListener

_CONNECT_WITHIN: Final = 30.0
_READ_WITHIN: Final = 30.0
_CHAT_WITHIN: Final = 600.0
_LONG_WITHIN: Final = 24 * 3600.0

_API: Final = "/api/v1"


class LemonadeClient:
    """A conversation with one server; made by whoever asks, ended with `close`.

    Every method raises:
        ServerUnreachable: nobody answers there.
        ConnectionLost: the answer broke off.
        NotAuthorised: the key is missing or wrong.
        ServerRefused: the server answered with an error; the message is the server's.
    """

    def __init__(self, base_url: str, api_key: str = "") -> None:
        """Remember where to ask; nothing is sent yet.

        Args:
            base_url: `http://HOST:PORT`, without a path.
            api_key: sent as a bearer token; empty for none.
        """
        self.base_url = base_url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Accept-Encoding"] = "identity"
        if api_key:
            self._session.headers["Authorization"] = _credential(api_key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    # ---- the server

    def live(self, timeout: float = 0.5) -> bool:
        """Whether a Lemonade server answers, within `timeout` seconds."""
        try:
            with self._open("GET", "/live", timeout=timeout) as response:
                return isinstance(response.json(), dict) and response.json().get("status") == "ok"
        except (ServerUnreachable, ConnectionLost, ValueError):
            return False

    def health(self, timeout: float = _READ_WITHIN) -> JsonObject:
        """Version, limits and the loaded models."""
        return self._json("GET", f"{_API}/health", timeout=timeout)

    def system_info(self) -> JsonObject:
        """The machine, and what each recipe's backends can do on it."""
        return self._json("GET", f"{_API}/system-info")

    def stats(self) -> JsonObject:
        """Figures of the last request, and totals since the server started."""
        return self._json("GET", f"{_API}/stats")

    def config(self) -> JsonObject:
        """Every setting, nested by section."""
        return self._json("GET", "/internal/config")

    def set_config(self, changes: JsonObject) -> JsonObject:
        """Change settings for good; the reply holds `updated` and perhaps `message`."""
        return self._json("POST", "/internal/set", body=changes)

    def shutdown(self) -> JsonObject:
        """Unload everything and end the server; it is gone shortly after the reply."""
        return self._json("POST", "/internal/shutdown", timeout=_CHAT_WITHIN)

    def restart(self) -> JsonObject:
        """Have the server begin again; `server.since` of `health` changes when it has."""
        return self._json("POST", "/internal/restart")

    def logs(
        self,
        model: str = "",
        *,
        lines: int = 100,
        follow: bool = False,
        level: str = "",
        as_json: bool = False,
    ) -> Iterator[str]:
        """The last lines that a model's engine printed, then new ones.

        Args:
            model: empty is the one used last.
            lines: how many to begin with.
            follow: go on with what comes.
            level: the least grave ones (`debug`, `info`, `warning`, `error`); empty is all.
            as_json: each line as a JSON object.
        """
        query = {"lines": str(lines)}
        if level:
            query["level"] = level
        if as_json:
            query["format"] = "json"
        if model:
            query["model"] = model
        if follow:
            query["follow"] = "true"
        within = _LONG_WITHIN if follow else _READ_WITHIN
        with self._open("GET", f"{_API}/logs", query=query, timeout=within) as response:
            rest = b""
            for chunk in _chunks(response):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (line.decode("utf-8", "replace").rstrip("\r") for line in whole)
            if rest:
                yield rest.decode("utf-8", "replace")

    # ---- models

    def models(self, *, show_all: bool = False) -> list[JsonObject]:
        """The downloaded models, or all that this machine could run."""
        query = {"show_all": "true" if show_all else "false"}
        data = self._json("GET", f"{_API}/models", query=query).get("data")
        return [entry for entry in data if isinstance(entry, dict)] if data else []

    def model(self, name: str) -> JsonObject:
        """One model."""
        return self._json("GET", f"{_API}/models/{quote(name, safe='')}")

    def adapters(self, name: str) -> JsonObject:
        """A model's adapters (`data`), and what changing them would come to (`effects`)."""
        return self._json("GET", f"{_API}/models/{quote(name, safe='')}/adapters")

    def change_adapter(self, name: str, change: JsonObject) -> JsonObject:
        """Load, scale or unload an adapter of a model; the reply's `effect` is one of four words.

        The model may be started anew for it, which takes as long as it takes.
        """
        return self._json(
            "POST",
            f"{_API}/models/{quote(name, safe='')}/adapters",
            body=change,
            timeout=_LONG_WITHIN,
        )

    def variants(self, checkpoint: str, source: str | None = None) -> JsonObject:
        """What a repository offers to pull."""
        query = {"checkpoint": checkpoint} | ({"source": source} if source else {})
        return self._json("GET", f"{_API}/pull/variants", query=query, timeout=_CHAT_WITHIN)

    def pull(self, request: JsonObject) -> Iterator[Progress]:
        """Register a model if the request says so, and download it.

        Closing the iterator closes the connection; the server stops a pull nobody follows.
        """
        return self._transfer("pull", request)

    def begin_pull(self, request: JsonObject) -> JsonObject:
        """The same, carried on by the server alone; the job it is."""
        return self._begin("pull", request)

    def delete(self, name: str) -> JsonObject:
        """Remove a model and the files that no other model uses."""
        return self._json(
            "POST", f"{_API}/delete", body={"model_name": name}, timeout=_CHAT_WITHIN
        )

    def load(
        self,
        name: str,
        *,
        options: JsonObject | None = None,
        save_options: bool = False,
        pinned: bool | None = None,
        force: bool = False,
        listen: ProgressListener | None = None,
    ) -> JsonObject:
        """Load a model and wait until it can answer.

        Args:
            name: of the model.
            options: of its recipe; only those given override what is saved.
            save_options: keep `options` for later loads.
            pinned: protect it from eviction; None leaves that as it is.
            force: try even what has failed again and again.
            listen: told how it goes on, if the server can tell.
        """
        body = {**(options or {}), "model_name": name, "save_options": save_options}
        if force:
            body["force"] = True
        if pinned is not None:
            body["pinned"] = pinned
        if listen is None:
            return self._json("POST", f"{_API}/load", body=body, timeout=_LONG_WITHIN)
        body["stream"] = True
        with self._open("POST", f"{_API}/load", body=body, timeout=_LONG_WITHIN) as response:
            if "event-stream" in response.headers.get("Content-Type", ""):
                return read_result(_chunks(response), listen)
            return _read_json(response) or {}

    def explain(self, name: str, options: JsonObject) -> JsonObject:
        """What loading it with these options would do; nothing is done."""
        path = f"{_API}/models/{quote(name, safe='')}/explain"
        return self._json("POST", path, body=options, timeout=_CHAT_WITHIN)

    def incidents(self, *, model: str = "", limit: int = 100) -> list[JsonObject]:
        """Failures of engines in short, the newest first."""
        query = urlencode({"limit": limit, **({"model": model} if model else {})})
        return list(self._json("GET", f"{_API}/incidents?{query}").get("incidents") or [])

    def incident(self, name: str) -> JsonObject:
        """All that is known of one failure."""
        return self._json("GET", f"{_API}/incidents/{quote(name, safe='')}")

    def unload(self, name: str | None = None) -> JsonObject:
        """Unload a model, or all of them."""
        body = {"model_name": name} if name else {}
        return self._json("POST", f"{_API}/unload", body=body, timeout=_CHAT_WITHIN)

    # ---- backends

    def install(
        self, recipe: str, variant: str, *, force: bool = False, version: str = ""
    ) -> Iterator[Progress]:
        """Install a backend, perhaps in a certain version.

        Closing the iterator closes the connection.
        """
        request: JsonObject = {"recipe": recipe, "backend": variant, "force": force}
        if version:
            request = {**request, "version": version}
        return self._transfer("install", request)

    def begin_install(
        self, recipe: str, variant: str, *, force: bool = False, version: str = ""
    ) -> JsonObject:
        """Install a backend, carried on by the server alone; the job it is."""
        request: JsonObject = {"recipe": recipe, "backend": variant, "force": force}
        if version:
            request = {**request, "version": version}
        return self._begin("install", request)

    def install_from(
        self,
        recipe: str,
        variant: str,
        source: str,
        *,
        sha256: str = "",
        version: str = "",
        force: bool = False,
    ) -> Iterator[Progress]:
        """Install a backend from a path on the server's machine, or from an address."""
        request: JsonObject = {"recipe": recipe, "backend": variant, "from": source}
        known = {"sha256": sha256, "version": version, "force": force}
        return self._transfer("install", {**request, **{k: v for k, v in known.items() if v}})

    def plan_install(
        self, recipe: str, variant: str, *, arch: str = "", version: str = ""
    ) -> JsonObject:
        """What installing a backend would do; `arch` is a GPU it would be done for."""
        body = {"recipe": recipe, "backend": variant}
        body |= {key: value for key, value in (("arch", arch), ("version", version)) if value}
        return self._json("POST", f"{_API}/install/dry-run", body=body, timeout=_CHAT_WITHIN)

    def uninstall(self, recipe: str, variant: str) -> JsonObject:
        """Remove a backend; models that run on it are unloaded first."""
        body = {"recipe": recipe, "backend": variant}
        return self._json("POST", f"{_API}/uninstall", body=body, timeout=_CHAT_WITHIN)

    def backend(self, recipe: str, variant: str) -> JsonObject:
        """One backend: its state, and every version that is there."""
        path = f"{_API}/backends/{quote(recipe, safe='')}/{quote(variant, safe='')}"
        return self._json("GET", path)

    def use_version(self, recipe: str, variant: str, version: str) -> JsonObject:
        """Have an installed version used from the next load on."""
        body = {"recipe": recipe, "backend": variant, "version": version}
        return self._json("POST", f"{_API}/backends/use", body=body)

    def roll_back(self, recipe: str, variant: str) -> JsonObject:
        """Have the version used that was used before."""
        body = {"recipe": recipe, "backend": variant}
        return self._json("POST", f"{_API}/backends/rollback", body=body)

    def prune(self, recipe: str = "", variant: str = "", *, dry_run: bool = False) -> JsonObject:
        """Remove versions nobody needs; of one backend, of a recipe's, or of all."""
        body: JsonObject = {"dry_run": dry_run}
        if recipe:
            body = {**body, "recipe": recipe}
        if variant:
            body = {**body, "backend": variant}
        return self._json("POST", f"{_API}/backends/prune", body=body, timeout=_CHAT_WITHIN)

    # ---- what the server fetches by itself

    def downloads(self) -> list[JsonObject]:
        """Its jobs; completed ones for a while."""
        with self._open("GET", f"{_API}/downloads", timeout=_READ_WITHIN) as response:
            rows = _read_rows(response)
        if rows is None:
            raise self._not_ours()
        return rows

    def control_download(self, id: str, action: str) -> JsonObject:  # noqa: A002 - it is one
        """Pause, cancel or remove one; the job, or the reply to a removal."""
        return self._json("POST", f"{_API}/downloads/control", body={"id": id, "action": action})

    # ---- inference

    def chat(
        self,
        model: str,
        messages: Sequence[JsonObject],
        *,
        stream: bool = True,
        parameters: JsonObject | None = None,
    ) -> Iterator[ChatDelta]:
        """Ask a model; the answer comes in pieces, or as one piece without `stream`.

        Args:
            model: to ask; loaded by the server if it is not.
            messages: the conversation so far.
            stream: piece by piece.
            parameters: further fields of the request, e.g. `max_tokens`.
        """
        body: dict[str, Any] = {**(parameters or {}), "model": model, "messages": list(messages)}
        body["stream"] = stream
        path = f"{_API}/chat/completions"
        if not stream:
            yield read_answer(self._json("POST", path, body=body, timeout=_CHAT_WITHIN), "message")
            return
        body["stream_options"] = {"include_usage": True}
        with self._open("POST", path, body=body, timeout=_CHAT_WITHIN) as response:
            yield from read_chat(_chunks(response))

    # ---- the wire

    def _transfer(self, verb: str, request: JsonObject) -> Iterator[Progress]:
        body = {**request, "stream": True}
        with self._open("POST", f"{_API}/{verb}", body=body, timeout=_LONG_WITHIN) as response:
            if "event-stream" in response.headers.get("Content-Type", ""):
                yield from read_transfer(_chunks(response))
                return
            # Some backends are set up by hand: the reply is then plain JSON with what to do.
            reply = _read_json(response) or {}
            _check_manual(reply)
            yield Progress(file="", complete=True)

    def _begin(self, verb: str, request: JsonObject) -> JsonObject:
        body = {**request, "stream": True, "subscribe": False}
        reply = self._json("POST", f"{_API}/{verb}", body=body, timeout=_CHAT_WITHIN)
        _check_manual(reply)
        return reply

    def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: JsonObject | None = None,
        timeout: float = _READ_WITHIN,
    ) -> JsonObject:
        with self._open(method, path, query=query, body=body, timeout=timeout) as response:
            reply = _read_json(response)
        if reply is None:
            raise self._not_ours()
        return reply

    @contextmanager
    def _open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: JsonObject | None = None,
        timeout: float,
    ) -> Iterator[requests.Response]:
        """One request; inside the block its body is read, and after it the connection is free."""
        answered = False
        try:
            with closing(
                self._session.request(
                    method,
                    self.base_url + path,
                    params=query,
                    json=body,
                    stream=True,
                    allow_redirects=False,
                    timeout=(min(_CONNECT_WITHIN, timeout), timeout),
                )
            ) as response:
                answered = True
                if not response.ok:
                    raise refusal(response.status_code, _read_json(response))
                yield response
        except requests.ReadTimeout as error:
            raise ConnectionLost(
                f"The server at {self.base_url} did not answer within {timeout:g} s.",
                remedy="Try again, or look at `lemonade logs`.",
            ) from error
        except requests.RequestException as error:
            if not answered:
                raise self._unreachable(error) from error
            raise ConnectionLost(
                f"The connection to {self.base_url} broke off: {_reason(error)}.",
                remedy="Is the server still running? `lemonade status` tells.",
            ) from error

    def _not_ours(self) -> ServerUnreachable:
        return ServerUnreachable(
            f"Could not connect to Lemonade server ({self.base_url}): "
            "what answers there does not speak JSON.",
            remedy="Name the server with --host and --port.",
        )

    def _unreachable(self, error: requests.RequestException) -> ServerUnreachable:
        return ServerUnreachable(
            f"Could not connect to Lemonade server ({self.base_url}): {_reason(error)}.",
            remedy="Start one with `lemonade serve`, or name another with --host and --port.",
        )


def _credential(key: str) -> bytes:
    """The `Authorization` header, in the bytes the server's environment has the key in.

    Raises:
        NotAuthorised: no header can hold that key.
    """
    key = key.strip()  # what was read from a file often ends with its line
    if not key.isprintable():
        raise NotAuthorised(
            "The API key holds characters that no header can carry, such as a line's end.",
            remedy="Look at --api-key, LEMONADE_API_KEY and LEMONADE_ADMIN_API_KEY.",
        )
    return f"Bearer {key}".encode()


def _chunks(response: requests.Response) -> Iterator[bytes]:
    # None hands over each chunk as it arrives instead of collecting a fixed amount.
    chunks: Iterator[bytes] = response.iter_content(chunk_size=None)
    return chunks


def _check_manual(reply: JsonObject) -> None:
    if action := reply.get("action"):
        raise refusal(200, {"error": f"This needs a manual step: {action}"})


def _read_rows(response: requests.Response) -> list[JsonObject] | None:
    try:
        data = response.json()
    except ValueError:
        return None
    return [row for row in data if isinstance(row, dict)] if isinstance(data, list) else None


def _read_json(response: requests.Response) -> JsonObject | None:
    try:
        data = response.json()
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def _reason(error: requests.RequestException) -> str:
    """The system's word for it, from under the layers of wrapping."""
    cause: BaseException | None = error
    while cause is not None:
        strerror = getattr(cause, "strerror", None)
        if isinstance(strerror, str):
            return strerror
        cause = cause.__cause__ or cause.__context__
    return "no answer" if isinstance(error, requests.Timeout) else "the connection was closed"
