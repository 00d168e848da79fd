"""Whether the hosts of engines and models can be reached, as the server would reach them.

All are asked at once, each in a thread that nobody waits for longer than its time; so a name
service that hangs costs some seconds and no more.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from lemonade.checkpoints import HubAccess
from lemonade.core.errors import DownloadFailed
from lemonade.core.records import dataclass
from lemonade.doctor.finding import Finding, Notebook
from lemonade.doctor.reaching import Answer, NoWay, Question
from lemonade.hardware import Evidence
from lemonade.installer import ReleaseHosts

WITHIN: Final = 10.0
"""Seconds for all of them together."""

_REMEDIES: Final = {
    "no-name": "Is there a network, and is the name right? `getent hosts {host}` asks for it. On "
    "a machine without a network, `lemonade config set offline=true` says so.",
    "refused": "A firewall or a proxy may be in between: set https_proxy, or {variable} to a "
    "mirror that can be reached.",
    "silent": "A firewall or a proxy may be in between: set https_proxy, or {variable} to a "
    "mirror that can be reached.",
    "certificate": "If a proxy of your company opens TLS, name its certificates in SSL_CERT_FILE; "
    "else look at this machine's clock and its package ca-certificates.",
    "proxy": "Correct https_proxy, or name the host in no_proxy.",
    "broken": "Something else answers at that address; correct {variable}.",
}


@dataclass(frozen=True, slots=True)
class Target:
    """A host that is asked.

    Attributes:
        who: it is, for people.
        variable: names another one.
        token: variable of the token that was sent with the question; empty if none was.
    """

    who: str
    variable: str
    question: Question
    token: str = ""
    answer: list[Answer | NoWay] = field(default_factory=list, compare=False)


def check_hosts(
    releases: ReleaseHosts,
    hub: HubAccess,
    environ: Mapping[str, str],
    offline: str,
    ask: Callable[[Question], Answer],
) -> tuple[Finding, ...]:
    """Ask each host once.

    Args:
        releases: where engines come from.
        hub: where models come from.
        environ: for SSL_CERT_FILE.
        offline: who decided that nothing may be fetched; empty if nobody did.
        ask: asks; `ask_host` outside tests.
    """
    book = Notebook("hosts")
    if offline:
        book.note(
            "offline",
            f"The hosts of engines and models are not asked: {offline} forbids the network.",
            Evidence(offline, "true"),
        )
        return book.findings
    targets = _targets(book, releases, hub, environ.get("SSL_CERT_FILE", ""))
    _ask_all(targets, ask)
    for target in targets:
        _tell(book, target)
    return book.findings


def _targets(book: Notebook, releases: ReleaseHosts, hub: HubAccess, cafile: str) -> list[Target]:
    found = []
    files, api = f"{releases.releases}/", f"{releases.api}/rate_limit"
    for who, variable, url in (
        ("The host of engines", "LEMONADE_GITHUB_URL", files),
        ("The host that lists releases of engines", "LEMONADE_GITHUB_API_URL", api),
    ):
        try:
            releases.check(url)
        except DownloadFailed as error:
            seen = Evidence(f"${variable}", _shown(url))
            book.error("not-allowed", error.message, seen, fix=error.remedy)
            continue
        headers = releases.headers(url)
        token = "GITHUB_TOKEN" if "Authorization" in headers else ""
        question = Question(url, headers, releases.proxy(url), cafile)
        found.append(Target(who, variable, question, token))
    headers = {"User-Agent": "lemonade"}
    if hub.token:
        headers["Authorization"] = f"Bearer {hub.token}"
    url = f"{hub.endpoint}/api/whoami-v2" if hub.token else f"{hub.endpoint}/"
    question = Question(url, headers, releases.proxy(url), cafile)
    found.append(
        Target("The host of models", "HF_ENDPOINT", question, "HF_TOKEN" if hub.token else "")
    )
    return found


def _ask_all(targets: Sequence[Target], ask: Callable[[Question], Answer]) -> None:
    def one(target: Target) -> None:
        try:
            target.answer.append(ask(target.question))
        except NoWay as error:
            target.answer.append(error)

    threads = [threading.Thread(target=one, args=(t,), daemon=True) for t in targets]
    for thread in threads:
        thread.start()
    limit = datetime.now(UTC).timestamp() + WITHIN
    for thread in threads:
        thread.join(max(0.0, limit - datetime.now(UTC).timestamp()))


def _tell(book: Notebook, target: Target) -> None:
    url = _shown(target.question.url)
    through = f" through {_shown(target.question.proxy)}" if target.question.proxy else ""
    answer = target.answer[0] if target.answer else NoWay("silent", "it does not answer in time")
    where = f"{url}{through}"
    if isinstance(answer, NoWay):
        if target.question.proxy and answer.rule in ("refused", "no-name"):
            # Over a proxy only that one is looked up and connected to.
            answer = NoWay("proxy", f"the proxy on the way to it says: {answer.reason}")
        host = urlsplit(url).hostname or url
        book.warn(
            f"unreachable-{answer.rule}",
            f"{target.who} cannot be reached: {answer.reason}. What is installed and downloaded "
            "goes on working.",
            Evidence(where, answer.reason),
            fix=_REMEDIES[answer.rule].format(host=host, variable=target.variable),
        )
        return
    seen = Evidence(url, f"HTTP {answer.status}")
    if answer.status in (401, 403) and target.token:
        book.warn(
            "token-refused",
            f"{target.who} ({url}) does not accept {target.token}.",
            seen,
            fix=f"Make a new token and set {target.token}, or unset it.",
        )
    elif answer.status == 407:
        book.warn(
            "proxy-wants-password",
            f"The proxy on the way to {url} wants to know who asks.",
            seen,
            fix="Write it into https_proxy: http://USER:PASSWORD@HOST:PORT.",
        )
    elif answer.status >= 500:
        book.warn(
            "host-in-trouble",
            f"{target.who} ({where}) answers with an error of its own.",
            seen,
            fix="Try again later.",
        )
    elif reset := _exhausted(answer):
        book.warn(
            "rate-limited",
            f"{url} answers no more questions from this address until {reset}.",
            seen,
            fix="Wait, or set GITHUB_TOKEN: whoever says who they are may ask more often.",
        )
    else:
        book.ok(f"{target.who} answers: {where}.", seen)


def _shown(url: str) -> str:
    """The address without what may be secret in it: who asks, and the query."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{place}{parts.path}"


def _exhausted(answer: Answer) -> str:
    """When we may ask again, if the host publishes releases and we may not now; else empty."""
    try:
        rate = json.loads(answer.body)["rate"]
        if rate["remaining"]:
            return ""
        return datetime.fromtimestamp(rate["reset"], UTC).strftime("%H:%M UTC")
    except (ValueError, LookupError, TypeError, OverflowError):
        return ""
