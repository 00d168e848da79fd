"""Floor 4: engines on this disk. Acts on an `InstallPlan`; knows what is installed."""

from lemonade.installer.bundles import BackendStatus, Bundles
from lemonade.installer.installer import Canary, Installer
from lemonade.installer.resolving import ResolvedFile, ResolvedPlan

__all__ = ["BackendStatus", "Bundles", "Canary", "Installer", "ResolvedFile", "ResolvedPlan"]
