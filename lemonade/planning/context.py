"""How long a context an engine is asked for.

Today only what somebody chose is passed on; otherwise the engine decides from the model and the
memory it finds, and cuts what is longer than the model was trained for by itself. A choice from
model, memory and other residents belongs here when memory is planned in bytes.
"""

from __future__ import annotations

from collections.abc import Mapping


def chosen_context(options: Mapping[str, object]) -> int | None:
    """The context in tokens that was chosen, or `None` if that is left to the engine.

    -1 and 0 both leave it: the first is Lemonade's word for it, the second llama.cpp's.
    """
    size = options.get("ctx_size")
    return size if isinstance(size, int) and size > 0 else None
