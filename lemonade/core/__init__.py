"""Floor 0: the words everybody shares. No input or output, no asyncio, no pydantic."""
