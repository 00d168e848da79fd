"""Floor 4: engines on this disk. Acts on an `InstallPlan`; knows what is installed."""

from lemonade.installer.bundles import BackendStatus, Bundles
from lemonade.installer.compiled import compile_cache, make_compile_cache
from lemonade.installer.handing import is_address
from lemonade.installer.hosts import ReleaseHosts
from lemonade.installer.inspection import InspectedBundle, inspect_bundles
from lemonade.installer.installer import Installer, Trial, TrialListener
from lemonade.installer.known_flags import KnownFlags
from lemonade.installer.latest import LatestReleases
from lemonade.installer.leases import VersionLease, lease, lease_again
from lemonade.installer.resolving import ResolvedFile, ResolvedPlan
from lemonade.installer.versions import InstalledVersion, Pruned, Versions

__all__ = [
    "BackendStatus", "Bundles", "InspectedBundle", "InstalledVersion", "Installer",
    "KnownFlags", "LatestReleases", "Pruned", "ReleaseHosts", "ResolvedFile", "ResolvedPlan",
    "Trial", "TrialListener", "VersionLease", "Versions", "compile_cache", "inspect_bundles",
    "is_address", "lease", "lease_again", "make_compile_cache",
]  # fmt: skip
