"""The server's error replies as our errors.

Bodies have several shapes (`{"error": "text"}`, `{"error": {"message", ...}}`); all end as one
sentence for people, with status and code among the facts.
"""

from __future__ import annotations

from lemonade.core.errors import LemonadeError, NotAuthorised, ServerRefused
from lemonade.core.inference import JsonObject


def refusal(status: int, body: JsonObject | None) -> LemonadeError:
    """The error that an answer means; `status` is 200 for an error inside a stream."""
    error = (body or {}).get("error")
    detail: JsonObject = error if isinstance(error, dict) else {}
    text = detail.get("message") if detail else error
    message = text if isinstance(text, str) and text else f"Request failed: {status}"
    remedy = detail.get("remedy")
    facts: dict[str, object] = {"status": status}
    code = (body or {}).get("code") or detail.get("code")
    if code:
        facts["code"] = code
    if status == 401:
        admin = "admin" in message
        return NotAuthorised(
            f"The server wants {'its admin' if admin else 'an'} API key, and got none or another.",
            remedy=f"Give it with --api-key or LEMONADE_{'ADMIN_' * admin}API_KEY.",
            facts=facts,
        )
    if not isinstance(remedy, str) or remedy in message:
        remedy = ""  # most of the server's messages say it themselves
    return ServerRefused(message, remedy=remedy, facts=facts)
