"""Floor 4: the files of models. What is complete on this disk, and what a hub has to be asked for.

Models are kept in the hub cache in its standard layout, so that everything that uses the same
cache shares them. huggingface-hub is the only way to the hub, and `failures`, `hub_api` and
`placing` are the only files that know it.
"""

from lemonade.checkpoints.access import HubAccess, hub_access, hub_cache
from lemonade.checkpoints.adapter_files import AdapterFacts, adapter_stamp, inspect_adapter
from lemonade.checkpoints.cache import ModelStore
from lemonade.checkpoints.config_json import read_config
from lemonade.checkpoints.downloads import Downloads
from lemonade.checkpoints.foresight import Foresight
from lemonade.checkpoints.hub import Hub
from lemonade.checkpoints.patience import Patience

__all__ = [
    "AdapterFacts",
    "Downloads",
    "Foresight",
    "Hub",
    "HubAccess",
    "ModelStore",
    "Patience",
    "adapter_stamp",
    "hub_access",
    "hub_cache",
    "inspect_adapter",
    "read_config",
]
