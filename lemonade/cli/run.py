"""`run`: a model's answer in the terminal, whatever has to be started and fetched for it.

The standard output is the answer and nothing else; everything about the work goes to the standard
error output.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import click

from lemonade.cli.asking import choose_model
from lemonade.cli.command import refuse_usage, words_of
from lemonade.cli.recipe_flags import LoadingCommand, placing_options, typed_options
from lemonade.cli.render import is_terminal, note, style
from lemonade.cli.session import Session
from lemonade.client import LemonadeClient

_STDIN: Final = "-"


@click.command(cls=LoadingCommand)
@click.argument("model", required=False)
@click.argument("prompt", nargs=-1)
@click.option("--system", metavar="TEXT", help="What the model is told before the prompt.")
@click.option("--think/--no-think", default=None, help="Let the model reason, or not.")
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer.")
@placing_options
@click.pass_context
def run(
    context: click.Context,
    model: str | None,
    prompt: tuple[str, ...],
    system: str | None,
    think: bool | None,  # noqa: FBT001 - click calls it
    max_tokens: int | None,
    save_options: bool,  # noqa: FBT001 - click calls it
    pinned: bool,  # noqa: FBT001 - click calls it
) -> int:
    """Ask a model, starting a server if needed.

    Downloads the model and installs its engine where that is still to do. Without PROMPT it is
    read from the standard input, or, at a terminal, a chat begins. The word - stands for the
    standard input. A server that is started here goes on in the background; `lemonade stop` ends
    it.
    """
    from lemonade.cli.answer import show_answer
    from lemonade.cli.loading import make_available, make_ready

    session = context.ensure_object(Session)
    if model is None and not sys.stdin.isatty():
        raise refuse_usage("Name a model: `lemonade list` shows them.", context)
    question = read_prompt(prompt)
    client = ensure_server(session)
    model = model or choose_model(client)
    options = typed_options(context)
    if options or save_options or pinned:
        make_ready(
            client,
            model,
            options=options,
            save_options=save_options,
            pinned=True if pinned else None,
            quiet=True,
        )
    else:
        make_available(client, model)
    if question is None:
        from lemonade.cli.chat import converse

        return converse(client, model, system=system, thinking=think)
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": question})
    parameters: dict[str, object] = {}
    if think is not None:
        parameters["enable_thinking"] = think
    if max_tokens is not None:
        parameters["max_tokens"] = max_tokens
    answer = show_answer(client.chat(model, messages, parameters=parameters))
    if is_terminal(sys.stderr) and answer.figures:
        note(style(answer.figures, err=True, dim=True))
    if not answer.text and answer.reasoned:
        note("The model reasoned and said nothing. Allow more --max-tokens, or --no-think.")
    return 0


def read_prompt(words: Sequence[str]) -> str | None:
    """What to ask; None if a person is there to be talked with.

    Raises:
        UsageError: the standard input was to be the prompt, and holds none.
    """
    if not words and sys.stdin.isatty():
        return None
    if not words or _STDIN in words:
        piped = sys.stdin.read().strip()
        if not piped:
            raise refuse_usage("There is no prompt: neither words nor standard input.")
        words = [piped if word == _STDIN else word for word in words or (_STDIN,)]
    return words_of(words)


def ensure_server(session: Session) -> LemonadeClient:
    """A conversation with the server; one is started in the background if this machine has none.

    Raises:
        ServerUnreachable: there is none elsewhere, or it does not come up here.
    """
    address, client = session.address(), session.client()
    if client.live(1.0):
        return client
    if not address.is_this_machine:
        client.health()  # says why, as every command does
        return client
    from lemonade.cli.background import start_server, wait_until_live
    from lemonade.cli.loading import working
    from lemonade.cli.logs import background_log

    server = start_server(address.port, background_log(), tethered=False)
    try:
        with working("Starting a server in the background", quiet=True):
            wait_until_live(server, client, anybody=True)
            if client.health().get("server", {}).get("pid") != server.pid:
                server.stop()  # somebody else's came first, and has the port
    except BaseException:
        server.stop()
        raise
    note(f"The server at {address.url} goes on in the background; `lemonade stop` ends it.")
    return client
