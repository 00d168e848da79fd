"""`pull`: a model by name, out of a repository, or as described on the command line.

This file decides what is asked of the server; which files that means is the server's business.
"""

from __future__ import annotations

from typing import Any, Final

import click

from lemonade.cli.asking import ask, choose
from lemonade.cli.command import Command, HeadedOption, refuse_usage
from lemonade.cli.downloads import begun
from lemonade.cli.progress import follow
from lemonade.cli.render import note, out
from lemonade.cli.session import Session, pass_session
from lemonade.client import LemonadeClient
from lemonade.core.errors import LemonadeError, NotInRepository, NotInstalled, ServerRefused
from lemonade.core.inference import JsonObject
from lemonade.core.units import render_size

LABELS: Final = (
    "chat",
    "coding",
    "dflash",
    "embeddings",
    "hot",
    "mtp",
    "reasoning",
    "reranking",
    "tool-calling",
    "vision",
)
_MANUAL: Final = "Manual Configuration Options"
_COLLECTION: Final = "collection."
_SHOWN_VARIANTS: Final = 5


class _PullCommand(Command):
    """`--components A B C` takes every word up to the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option in front of each of its words, as click wants it."""
        words: list[str] = []
        inside = False
        for word in args:
            if word == "--components":
                inside = True
            elif word.startswith("-"):
                inside = False
                words.append(word)
            else:
                words += ["--components", word] if inside else [word]
        return super().parse_args(ctx, words)


@click.command(cls=_PullCommand)
@click.argument("model", metavar="MODEL_OR_CHECKPOINT")
@click.option("--source", type=click.Choice(["huggingface", "modelscope"]), help="Where from.")
@click.option(
    "--checkpoint",
    "checkpoints",
    cls=HeadedOption,
    heading=_MANUAL,
    nargs=2,
    multiple=True,
    metavar="TYPE CHECKPOINT",
    help="A file of the model: main, mmproj, ..., and owner/repo:variant. Repeatable.",
)
@click.option(
    "--recipe", cls=HeadedOption, heading=_MANUAL, metavar="RECIPE", help="How it is run."
)
@click.option(
    "--label",
    "labels",
    cls=HeadedOption,
    heading=_MANUAL,
    multiple=True,
    type=click.Choice(LABELS),
    help="What it can do. Repeatable.",
)
@click.option(
    "--components",
    cls=HeadedOption,
    heading=_MANUAL,
    multiple=True,
    metavar="MODEL...",
    help="The models that a collection is made of.",
)
@click.option("--detach", is_flag=True, help="Let the server do it, and come back at once.")
@pass_session
def pull(
    session: Session,
    model: str,
    source: str | None,
    checkpoints: tuple[tuple[str, str], ...],
    recipe: str | None,
    labels: tuple[str, ...],
    components: tuple[str, ...],
    detach: bool,  # noqa: FBT001 - click calls it
) -> None:
    """Download a model.

    MODEL_OR_CHECKPOINT is a name from `lemonade list`, or a repository as OWNER/REPO[:VARIANT] or
    the URL of its page. With the manual options it is the new name, user.NAME. Ctrl-C stops; the
    same command goes on where it stopped.
    """
    client = session.client()
    if checkpoints or recipe or labels or components:
        request = _manual(model, source, checkpoints, recipe)
        request |= {"labels": list(labels)} if labels else {}
        request |= {"components": list(components)} if components else {}
        if str(recipe).startswith(_COLLECTION) and not components:
            raise refuse_usage(f"The recipe {recipe} needs --components.")
        if not str(recipe).startswith(_COLLECTION) and not checkpoints:
            raise refuse_usage("A model of your own needs --checkpoint TYPE CHECKPOINT.")
    elif "/" in model:
        request = _from_repository(client, model, source)
    else:
        request = {"model_name": model} | ({"source": source} if source else {})
    name = request["model_name"]
    request["do_not_upgrade"] = False
    try:
        if detach:
            out(begun(client.begin_pull(request)))
            return
        out(f"Pulling model: {name}")
        follow(client.pull(request))
    except ServerRefused as error:
        if error.facts.get("code") != "unknown_model":
            raise
        raise ServerRefused(
            error.message,
            remedy="`lemonade pull OWNER/REPO` takes a model from a repository.",
            facts=error.facts,
        ) from error
    out(f"Model pulled successfully: {name}")


def _manual(
    name: str,
    source: str | None,
    checkpoints: tuple[tuple[str, str], ...],
    recipe: str | None,
) -> dict[str, Any]:
    """The request that registers a model as described."""
    from lemonade.catalog import from_page

    if recipe is None:
        raise refuse_usage("A model of your own needs --recipe RECIPE.")
    found: dict[str, str] = {}
    for role, text in checkpoints:
        found[role], page_source = from_page(text)
        source = _agree(source, page_source)
    request: dict[str, Any] = {"model_name": name, "recipe": recipe}
    if found:
        request["checkpoints"] = found
    if source:
        request["source"] = source
    return request


def _agree(source: str | None, page_source: str | None) -> str | None:
    if source and page_source and source != page_source:
        raise refuse_usage(f"One says {source}, the other is a page of {page_source}.")
    return source or page_source


# ---- out of a repository


def _from_repository(client: LemonadeClient, text: str, source: str | None) -> dict[str, Any]:
    """The request that a repository's contents amount to; asks where that is not clear."""
    from lemonade.catalog import from_page

    text, page_source = from_page(text)
    source = _agree(source, page_source)
    checkpoint, _, variant = text.partition(":")
    try:
        offer = client.variants(checkpoint, source)
    except ServerRefused as error:
        if error.facts.get("status") != 404:
            raise
        raise NotInRepository(
            f"{checkpoint} was not found on {source or 'the hub'}: {error.message}",
            remedy="Is it spelled as on its page, and public?",
        ) from error
    source = source or offer.get("source")
    request: dict[str, Any] = {"recipe": offer.get("recipe"), "source": source}
    suggested = str(offer.get("suggested_name") or checkpoint.rpartition("/")[2])
    match offer.get("repo_kind"):
        case "gguf":
            return request | _gguf(offer, checkpoint, variant, suggested)
        case "collection":
            _ignore_variant(variant, "A collection")
            _describe_collection(offer)
            checkpoints = {"main": checkpoint}
            return request | {"model_name": f"user.{suggested}", "checkpoints": checkpoints}
        case _:
            _ignore_variant(variant, "This repository")
            _require_engine(client, str(offer.get("recipe")))
            return request | {"model_name": f"user.{suggested}", "checkpoint": checkpoint}


def _gguf(offer: JsonObject, checkpoint: str, wanted: str, suggested: str) -> dict[str, Any]:
    variants: list[JsonObject] = list(offer.get("variants") or ())
    names = [str(variant.get("name")) for variant in variants]
    name = ""
    if wanted:
        wanted = next((n for n in names if n.casefold() == wanted.casefold()), wanted)
    elif not names:
        raise NotInRepository(f"{checkpoint} holds no file that can be run.")
    elif len(names) == 1:
        wanted = names[0]
        note(f"{checkpoint} holds one variant: {_label(variants[0])}")
    else:
        note(f"{checkpoint} holds {len(names)} variants:")
        labels = [_label(variant) for variant in variants]
        try:
            wanted = choose("Variant (number or name)", names, labels, first=_SHOWN_VARIANTS)
            name = ask("Name of the model", f"{suggested}-{wanted}")
        except LemonadeError as error:
            error.remedy = f"Name one: `lemonade pull {checkpoint}:{names[0]}`."
            raise
    request: dict[str, Any] = {
        "model_name": f"user.{(name or f'{suggested}-{wanted}').removeprefix('user.')}",
        "checkpoint": f"{checkpoint}:{wanted}",
    }
    if suggested_labels := offer.get("suggested_labels"):
        request["labels"] = list(suggested_labels)
    if projectors := offer.get("mmproj_files"):
        request["mmproj"] = projectors[0]
    drafts = list(offer.get("draft_files") or ())
    if len(drafts) == 1:
        main = request.pop("checkpoint")
        request["checkpoints"] = {"main": main, "draft": f"{checkpoint}:{drafts[0]}"}
    elif drafts:
        note(f"Warning: it holds {len(drafts)} draft models; none is taken.")
    return request


def _label(variant: JsonObject) -> str:
    count = len(variant.get("files") or ())
    files = "1 file" if count == 1 else f"{count} files"
    return f"{variant.get('name')}  ({files}, {render_size(int(variant.get('size_bytes') or 0))})"


def _ignore_variant(variant: str, what: str) -> None:
    if variant:
        note(f"Warning: {what} has no variants; '{variant}' is ignored.")


def _describe_collection(offer: JsonObject) -> None:
    size = offer.get("size")
    about = f", about {size:.1f} GB" if isinstance(size, (int, float)) else ""
    note(f"A collection of {offer.get('component_count', 'several')} models{about}.")


def _require_engine(client: LemonadeClient, recipe: str) -> None:
    """A large download is of no use without something to run it."""
    known = (client.system_info().get("recipes") or {}).get(recipe) or {}
    rows: dict[str, JsonObject] = known.get("backends") or {}
    if any(row.get("state") == "installed" for row in rows.values()):
        return
    actions = [str(row["action"]) for row in rows.values() if row.get("action")]
    raise NotInstalled(
        f"Nothing that runs {recipe} is installed.",
        remedy=f"First: {' or '.join(actions)}" if actions else "It cannot run on this machine.",
    )
