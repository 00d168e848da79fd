"""What huggingface-hub raises, in our words; and which of it may pass if one tries again.

The only file that knows its exceptions. huggingface-hub is imported when something is asked of
it, not with the room: it takes a third of a second.
"""

from __future__ import annotations

import errno
import sys
from types import ModuleType
from typing import Final

from lemonade.core.errors import (
    CheckpointError,
    GatedRepository,
    HubUnreachable,
    LemonadeError,
    NotInRepository,
    Offline,
    OutOfDisk,
)
from lemonade.core.units import render_size

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PASSING: Final = (408, 425, 429, 500, 502, 503, 504)


def transport() -> ModuleType:
    """The HTTP library huggingface-hub brings along: httpx, or its successor."""
    from huggingface_hub import get_session

    return sys.modules[type(get_session()).__module__.partition(".")[0]]


def may_pass(error: BaseException, *, connecting: bool) -> bool:
    """Whether trying again may help.

    Args:
        error: as huggingface-hub raised it.
        connecting: whether that includes a hub that cannot be reached at all.
    """
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    http = transport()
    if isinstance(error, OfflineModeIsEnabled):
        return False
    if isinstance(error, HfHubHTTPError | http.HTTPStatusError):
        return error.response.status_code in _PASSING
    if isinstance(error, http.ConnectError | http.ConnectTimeout):
        return connecting
    if isinstance(error, http.TransportError):
        return not isinstance(error, http.UnsupportedProtocol | http.ProxyError)
    return error.__cause__ is not None and may_pass(error.__cause__, connecting=connecting)


def in_our_words(error: Exception, repository: str, endpoint: str) -> LemonadeError | None:
    """The error as one of ours; `None` if it is not about the hub or the disk, so a bug.

    Args:
        error: as it was raised.
        repository: what was asked for.
        endpoint: of whom.
    """
    if isinstance(error, LemonadeError):
        return error
    return (
        _about_the_repository(error, repository)
        or _about_the_hub(error, repository, endpoint)
        or _about_the_disk(error)
    )


def _about_the_repository(error: Exception, repository: str) -> CheckpointError | None:
    from huggingface_hub import errors as hf

    facts: dict[str, object] = {"repository": repository}
    if isinstance(error, hf.GatedRepoError):
        return GatedRepository(
            f"{repository} is only given to those who accepted its terms.",
            remedy="Accept them on its page, then set HF_TOKEN to a token of yours.",
            facts=facts,
        )
    if isinstance(error, hf.RepositoryNotFoundError):
        return NotInRepository(
            f"There is no repository {repository}, or it is private.",
            remedy="Check the spelling; for a private repository set HF_TOKEN.",
            facts=facts,
        )
    if isinstance(error, hf.RevisionNotFoundError):
        return NotInRepository(f"{repository} does not have that revision.", facts=facts)
    if isinstance(error, hf.RemoteEntryNotFoundError):
        return NotInRepository(
            f"A file is no longer in {repository}.",
            remedy="Try again: the repository may have changed meanwhile.",
            facts=facts,
        )
    if isinstance(error, hf.HFValidationError):
        return NotInRepository(
            f"'{repository}' is not the name of a repository.",
            remedy="Write owner/repo, as in unsloth/Qwen3-0.6B-GGUF.",
            facts=facts,
        )
    return None


def _about_the_hub(error: Exception, repository: str, endpoint: str) -> CheckpointError | None:
    from huggingface_hub import errors as hf

    facts: dict[str, object] = {"endpoint": endpoint, "repository": repository}
    if isinstance(error, hf.OfflineModeIsEnabled):
        return Offline(
            "HF_HUB_OFFLINE forbids asking the hub.", remedy="Unset it and start again."
        )
    if isinstance(error, hf.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return _about_the_hub(error.__cause__, repository, endpoint) or _about_the_repository(
            error.__cause__, repository
        )
    http = transport()
    if isinstance(error, hf.HfHubHTTPError | http.HTTPStatusError):
        return _refused(error.response.status_code, repository, endpoint)
    if isinstance(error, hf.FileMetadataError | http.InvalidURL | http.UnsupportedProtocol):
        return HubUnreachable(
            f"{endpoint} does not answer like a hub: {_first_line(error)}",
            remedy="Check HF_ENDPOINT.",
            facts=facts,
        )
    if isinstance(error, http.HTTPError):
        return HubUnreachable(
            f"The hub {endpoint} cannot be reached: {_first_line(error)}",
            remedy="Check the network, or HF_ENDPOINT if you set it, and try again; what is "
            "already here is kept.",
            facts=facts,
        )
    return None


def _refused(status: int, repository: str, endpoint: str) -> CheckpointError:
    facts: dict[str, object] = {
        "endpoint": endpoint,
        "repository": repository,
        "upstream_status_code": status,
    }
    if status in (401, 403):
        return GatedRepository(
            f"The hub does not let us read {repository} (status {status}).",
            remedy="Set HF_TOKEN to a token that may; for a gated repository, accept its terms "
            "on its page first.",
            facts=facts,
        )
    if status == 404:
        return NotInRepository(
            f"There is no repository {repository}, or it is private.",
            remedy="Check the spelling; for a private repository set HF_TOKEN.",
            facts=facts,
        )
    return HubUnreachable(
        f"The hub {endpoint} answers with status {status}.",
        remedy="Try again later; what is already here is kept.",
        facts=facts,
    )


def _about_the_disk(error: Exception) -> CheckpointError | None:
    if not isinstance(error, OSError):
        return None
    if error.errno in _NO_SPACE:
        return OutOfDisk(
            "The disk is full.",
            remedy="Free some space and pull again; what is already here is kept.",
            facts={"path": error.filename or ""},
        )
    return CheckpointError(
        f"The hub cache cannot be used: {error}.",
        remedy="Check the owner and permissions of its directory.",
    )


def no_room(needed: int, free: int, where: str) -> OutOfDisk:
    """The error of a download that would not fit."""
    return OutOfDisk(
        f"{render_size(needed)} are needed in {where}, and {render_size(free)} are free.",
        remedy="Free some space, or choose another place with the setting models_dir.",
        facts={"needed_bytes": needed, "free_bytes": free, "path": where},
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
