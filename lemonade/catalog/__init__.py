"""Floor 2: what is declared. Backends, recipes, models and families, and where they come from."""

from lemonade.catalog.backend import BackendSpec, BundleSpec, PinSpec, RunsOnSpec
from lemonade.catalog.catalog import Catalog
from lemonade.catalog.families import FamilyMatch, FamilyRegistry
from lemonade.catalog.model import EXTRA_SOURCE, LOCAL_SOURCE, SHIPPED_SOURCE, ModelSpec
from lemonade.catalog.recipe import ArgvSpec, OptionSpec, RecipeSpec, UpstreamSpec
from lemonade.catalog.registry import ModelRegistry
from lemonade.catalog.sources import shipped, sources

__all__ = [
    "EXTRA_SOURCE", "LOCAL_SOURCE", "SHIPPED_SOURCE", "ArgvSpec", "BackendSpec", "BundleSpec",
    "Catalog", "FamilyMatch", "FamilyRegistry", "ModelRegistry", "ModelSpec", "OptionSpec",
    "PinSpec", "RecipeSpec", "RunsOnSpec", "UpstreamSpec", "shipped", "sources",
]  # fmt: skip
