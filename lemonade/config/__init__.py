"""Floor 2: what the operator decided. Settings, the file they are in, and who may come in."""

from lemonade.config.configuration import CONFIG_FILE, Configuration
from lemonade.config.folders import extra_models
from lemonade.config.reference import render_reference
from lemonade.config.review import ConfigReview, review_config
from lemonade.config.sections import pin_key
from lemonade.config.settings import LOG_LEVELS, Settings
from lemonade.core.access import AccessKeys, Level, bearer, origin_allowed
from lemonade.core.sections import SectionSpec

__all__ = [
    "CONFIG_FILE", "LOG_LEVELS", "AccessKeys", "ConfigReview", "Configuration", "Level",
    "SectionSpec", "Settings", "bearer", "extra_models", "origin_allowed", "pin_key",
    "render_reference", "review_config",
]  # fmt: skip
