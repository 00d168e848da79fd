"""Which models are loaded, and who may use them."""

from lemonade.residency.adapter_fetching import AdapterFetching, as_model
from lemonade.residency.adapters import Change, Effect, Fitter
from lemonade.residency.adopting import Adopter
from lemonade.residency.availability import Availability
from lemonade.residency.awake import Awake, at_work
from lemonade.residency.canary import Canary
from lemonade.residency.circuit import Circuits, CrashPolicy, Failing
from lemonade.residency.counters import scrape
from lemonade.residency.explaining import Explanation, explain, shown, words_of
from lemonade.residency.failures import Failures
from lemonade.residency.incidents import Incidents
from lemonade.residency.keeper import Keeper
from lemonade.residency.learning import Learner
from lemonade.residency.loading import Loader, LoaderParts, LoadPlan, log_file_of
from lemonade.residency.local import LocalPlacement
from lemonade.residency.newcomers import Newcomers
from lemonade.residency.placement import Instance, Placement
from lemonade.residency.policies import crash_policy, hang_policy
from lemonade.residency.pool import Pool
from lemonade.residency.quarantine import Quarantine, describe_quarantined
from lemonade.residency.resident import Lease, Phase, Resident
from lemonade.residency.selections import Selections
from lemonade.residency.swapping import Swapper
from lemonade.residency.unheld import kept_versions
from lemonade.residency.wishes import LoadRequest

__all__ = [
    "AdapterFetching",
    "Adopter",
    "Availability",
    "Awake",
    "Canary",
    "Change",
    "Circuits",
    "CrashPolicy",
    "Effect",
    "Explanation",
    "Failing",
    "Failures",
    "Fitter",
    "Incidents",
    "Instance",
    "Keeper",
    "Learner",
    "Lease",
    "LoadPlan",
    "LoadRequest",
    "Loader",
    "LoaderParts",
    "LocalPlacement",
    "Newcomers",
    "Phase",
    "Placement",
    "Pool",
    "Quarantine",
    "Resident",
    "Selections",
    "Swapper",
    "as_model",
    "at_work",
    "crash_policy",
    "describe_quarantined",
    "explain",
    "hang_policy",
    "kept_versions",
    "log_file_of",
    "scrape",
    "shown",
    "words_of",
]
