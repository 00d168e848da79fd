"""Which adapter shall answer, said to engines in their own way: by a name, or by a list of scales.

Only requests of models with adapters come here. Of their bodies that one field is written anew;
the other fields keep their very bytes.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from lemonade.core.errors import MalformedRequest

_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def with_field(
    body: bytes,
    name: str,
    value: Any,  # noqa: ANN401 - any JSON value
    *,
    keep: bool = False,
) -> bytes:
    """The body, a JSON object, with a field set to a value; not if it is there, with `keep`.

    Raises:
        MalformedRequest: a name in it is not UTF-8, so that it cannot be written anew.
    """
    try:
        fields = _FIELDS.decode(body)
    except UnicodeDecodeError as error:
        raise MalformedRequest(
            "The body is not JSON: it is not UTF-8.", remedy="Send a JSON object in UTF-8."
        ) from error
    if keep and name in fields:
        return body
    fields[name] = msgspec.Raw(msgspec.json.encode(value))
    return msgspec.json.encode(fields)
