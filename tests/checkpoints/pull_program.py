"""Downloads one model and prints `done`, or the error's code: something to be killed or starved.

`python -m tests.checkpoints.pull_program URL CACHE STATE CHECKPOINT [LARGEST_FILE_BYTES]`
"""

from __future__ import annotations

import asyncio
import resource
import sys
import tomllib
from pathlib import Path

from lemonade.catalog import ModelSpec, RecipeSpec
from lemonade.checkpoints import Downloads, Hub, ModelStore
from lemonade.core.bus import Bus
from lemonade.core.errors import LemonadeError

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "llamacpp.toml"


async def main(url: str, cache: str, state: str, checkpoint: str) -> None:
    recipe = RecipeSpec.model_validate(tomllib.loads(RECIPE.read_text()))
    hub = Hub({"HF_ENDPOINT": url, "HF_HUB_CACHE": cache, "HF_TOKEN": ""})
    store = ModelStore(hub.cache_dir, shipped=Path, recipes={recipe.id: recipe}, state=Path(state))
    spec = ModelSpec(name="m", origin="user", recipe=recipe.id, checkpoint=checkpoint)
    async with Downloads(hub, store, Bus()) as downloads:
        await downloads.download(spec, recipe, lambda _: None)
    print("done", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 5:
        most = int(sys.argv[5])
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    try:
        asyncio.run(main(*sys.argv[1:5]))
    except LemonadeError as error:
        print(error.code, error, flush=True)
        sys.exit(1)
