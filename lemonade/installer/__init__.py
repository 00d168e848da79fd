"""Floor 4: engines on this disk. Acts on an `InstallPlan`; knows what is installed."""

from lemonade.installer.bundles import BackendStatus, Bundles
from lemonade.installer.handing import is_address
from lemonade.installer.hosts import ReleaseHosts
from lemonade.installer.inspection import InspectedBundle, inspect_bundles
from lemonade.installer.installer import Canary, Installer
from lemonade.installer.latest import LatestReleases
from lemonade.installer.resolving import ResolvedFile, ResolvedPlan

__all__ = [
    "BackendStatus", "Bundles", "Canary", "InspectedBundle", "Installer", "LatestReleases",
    "ReleaseHosts", "ResolvedFile", "ResolvedPlan", "inspect_bundles", "is_address",
]  # fmt: skip
