"""A program for the engine's own Python: what each token of a text adds to it, as JSON.

Arguments: the overlay's folder, the model's folder, the text.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

overlay, folder, text = sys.argv[1:]
sys.path.append(overlay)
sys.dont_write_bytecode = True

from binding import Model, load  # type: ignore[import-not-found]  # noqa: E402

model = Model(load(), Path(folder))
generator = model.generator({"max_length": 64})
pieces = [generator.text_of(token) for token in model.encode(text)]
print(json.dumps([*pieces, generator.rest()]))
