"""What is done about engines that fail or hang, as settings; and keeping the machine awake.

The groups `crash` and `hang` of the configuration. What follows from them is decided where models
are loaded; here are only the numbers, and what they may be.
"""

from __future__ import annotations

from lemonade.config.keys import Group, setting


class CrashSettings(Group):
    """What is done about engines that fail. Times are seconds."""

    backoff_first_s: float = setting(
        1.0,
        "Seconds before the second further start of an engine that failed; the first is made at "
        "once, and the pause doubles from one to the next.",
        ge=0,
        le=86400,
    )
    backoff_max_s: float = setting(60.0, "Where that doubling ends.", ge=0, le=86400)
    backoff_jitter: float = setting(
        0.2, "Share by which such a pause is lengthened at random, 0 to 1.", ge=0, le=1
    )
    failures: int = setting(
        3,
        "How many failures open the circuit: nothing is started then, and requests get 503 with "
        "the cause. 0 never opens it.",
        ge=0,
    )
    window_s: float = setting(600.0, "Seconds for which a failure counts.", gt=0)
    open_s: float = setting(
        60.0, "Seconds the circuit stays open at first; the time doubles.", gt=0, le=86400
    )
    open_max_s: float = setting(600.0, "Where that doubling ends.", gt=0, le=86400)


class HangSettings(Group):
    """What is done about engines that live and make nothing. Times are seconds."""

    watch: bool = setting(
        True,  # noqa: FBT003
        "Whether engines that hang are ended and loaded again.",
    )
    timeout_s: float = setting(
        0.0,
        "Seconds an engine that somebody waits for may go without making anything; 0 leaves it to "
        "the recipe.",
        ge=0,
    )
    idle_s: float = setting(
        30.0, "Seconds an engine without requests may go on failing its probes.", gt=0
    )
