"""Which models are loaded, and who may use them."""

from lemonade.residency.loading import Loader, LoadPlan, LoadRequest
from lemonade.residency.local import LocalPlacement
from lemonade.residency.placement import Instance, Placement
from lemonade.residency.pool import Pool
from lemonade.residency.resident import Lease, Phase, Resident

__all__ = [
    "Instance",
    "Lease",
    "LoadPlan",
    "LoadRequest",
    "Loader",
    "LocalPlacement",
    "Phase",
    "Placement",
    "Pool",
    "Resident",
]
