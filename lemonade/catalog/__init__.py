"""Floor 2: what is declared. Backends, recipes, models and families, and where they come from."""

from lemonade.catalog.adapters import Adapter, AdapterFiles, AdapterRegistry
from lemonade.catalog.adapters_spec import AdaptersSpec
from lemonade.catalog.availability import not_run, not_run_reason, unavailable_reason
from lemonade.catalog.backend import BackendSpec, BundleSpec, PinSpec, RunsOnSpec, RuntimeSpec
from lemonade.catalog.catalog import Catalog
from lemonade.catalog.checkpoint_text import UPLOADED_SOURCE, from_page
from lemonade.catalog.families import FamilyMatch, FamilyRegistry
from lemonade.catalog.launch_spec import ContextSpec, HelpSpec, RetrySpec
from lemonade.catalog.lock import LockedPackage, normal_name
from lemonade.catalog.model import EXTRA_SOURCE, LOCAL_SOURCE, SHIPPED_SOURCE, ModelSpec
from lemonade.catalog.names import clean_name, split_origin
from lemonade.catalog.recipe import (
    ArgvSpec,
    CanarySpec,
    LimitsSpec,
    OptionSpec,
    RecipeSpec,
    UpstreamSpec,
)
from lemonade.catalog.registration import is_definition
from lemonade.catalog.registry import ModelRegistry
from lemonade.catalog.review import CatalogReview, review_catalog
from lemonade.catalog.saved_options import SavedOptions, is_unset
from lemonade.catalog.sources import shipped, sources
from lemonade.catalog.trust import trusted

__all__ = [
    "EXTRA_SOURCE", "LOCAL_SOURCE", "SHIPPED_SOURCE", "UPLOADED_SOURCE", "Adapter",
    "AdapterFiles", "AdapterRegistry", "AdaptersSpec", "ArgvSpec",
    "BackendSpec", "BundleSpec", "CanarySpec", "Catalog", "CatalogReview", "ContextSpec",
    "FamilyMatch", "FamilyRegistry", "HelpSpec", "LimitsSpec", "LockedPackage", "ModelRegistry",
    "ModelSpec", "OptionSpec", "PinSpec", "RecipeSpec", "RetrySpec", "RunsOnSpec", "RuntimeSpec",
    "SavedOptions", "UpstreamSpec", "clean_name", "from_page", "is_definition", "is_unset",
    "normal_name", "not_run", "not_run_reason", "review_catalog", "shipped", "sources",
    "split_origin", "trusted", "unavailable_reason",
]  # fmt: skip
