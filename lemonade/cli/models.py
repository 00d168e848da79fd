"""`load`, `unload`, `delete`: one model and the server."""

from __future__ import annotations

import click

from lemonade.cli.command import Command
from lemonade.cli.holders import write_quarantined, write_still_held
from lemonade.cli.recipe_flags import LoadingCommand, placing_options, typed_options
from lemonade.cli.render import note, out, write_json
from lemonade.cli.session import Session, pass_session
from lemonade.core.inference import JsonObject


@click.command(cls=LoadingCommand)
@click.argument("model")
@placing_options
@click.option("--force", is_flag=True, help="Try now what has failed again and again.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's reply.")
@click.pass_context
def load(
    context: click.Context,
    model: str,
    save_options: bool,  # noqa: FBT001 - click calls it
    pinned: bool,  # noqa: FBT001 - click calls it
    force: bool,  # noqa: FBT001 - click calls it
    as_json: bool,  # noqa: FBT001 - click calls it
) -> None:
    """Load a model.

    Downloads it and installs its engine where that is still to do. Only the options that are
    given override what is saved and configured.
    """
    from lemonade.cli.loading import make_ready

    client = context.ensure_object(Session).client()
    _warn_if_all_pinned(client.model(model), client.health())
    reply = make_ready(
        client,
        model,
        options=typed_options(context),
        save_options=save_options,
        pinned=True if pinned else None,
        force=force,
        quiet=as_json,
    )
    if as_json:
        write_json(reply)
    else:
        out(f"Model loaded successfully: {model}")


@click.command(cls=Command)
@click.argument("model", required=False)
@pass_session
def unload(session: Session, model: str | None) -> None:
    """Unload a model, or all.

    Requests that it is answering are finished first. MODEL:NAME takes an adapter away, and leaves
    the model.
    """
    out(f"Unloading model: {model}" if model else "Unloading all models")
    answer = session.client().unload(model)
    if answer.get("effect"):
        out(str(answer.get("message")))
        return
    out(f"Model unloaded successfully: {model}" if model else "All models unloaded successfully.")
    write_still_held(answer)
    write_quarantined(answer)


@click.command(cls=Command)
@click.argument("model")
@pass_session
def delete(session: Session, model: str) -> None:
    """Delete a model from this machine.

    Files that another model uses stay. MODEL:NAME takes an adapter away, and deletes what was
    fetched for it.
    """
    out(f"Deleting model: {model}")
    reply = session.client().delete(model)
    if reply.get("effect"):
        out(str(reply.get("message")))
        return
    out(f"Model deleted successfully: {model}")


def _warn_if_all_pinned(model: JsonObject, health: JsonObject) -> None:
    """The load will be refused if nothing can make room; better said before a long download."""
    from lemonade.catalog import ModelSpec

    if any(m.get("model_name") == model.get("id") for m in health.get("all_models_loaded") or ()):
        return
    spec = ModelSpec.model_validate({**model, "name": model.get("id"), "origin": "user"})
    kind = str(spec.type)
    most = (health.get("max_models") or {}).get(kind, -1)
    pinned = (health.get("pinned_models") or {}).get(kind, 0)
    if most != -1 and pinned >= most:
        note(
            f"Warning: all {most} places for models of type {kind} are pinned. "
            "Unload one, or raise max_loaded_models."
        )
