"""The table of routes in docs/api.md, rendered from the routes themselves."""

from __future__ import annotations

import inspect

from lemonade.gateway.application import all_routes


def render_reference() -> str:
    """A Markdown table: method, path, who may call, what it does."""
    lines = ["| method | path | access | what it does |", "|---|---|---|---|"]
    for route in all_routes():
        path = f"P{route.path}" if route.prefixed else route.path
        what = (inspect.getdoc(route.handler) or "").partition("\n\n")[0].replace("\n", " ")
        lines.append(f"| {route.method} | `{path}` | {route.access} | {what} |")
    return "\n".join(lines) + "\n"
