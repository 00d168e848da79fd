"""A small OpenAI-compatible HTTP server around ONNX Runtime GenAI, for one model on the processor.

Started as `PYTHON -I server.py ARGS` in a private environment that holds the library's packages
and nothing else. It takes the command line of the `ryzenai-server` executable, which it stands in
for where there is no NPU; an unknown flag or a wrong value is one line on stderr and exit status
1. It dies with its parent, and at SIGTERM it ends at once whatever streams are open.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

sys.path.append(str(Path(__file__).parent))  # `-I` leaves the program's own folder out
sys.dont_write_bytecode = True  # that folder belongs to an installed package
from binding import Failed, load, version  # noqa: E402
from engine import CONFIGURATION, Engine, Options  # noqa: E402
from listening import Listener  # noqa: E402
from service import Service  # noqa: E402

KEY = "OGA_API_KEY"  # the variable that a key for clients is read from


class Parser(argparse.ArgumentParser):
    """Like argparse's, but a wrong command line is one line and status 1."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end."""
        print(f"error: {message}", file=sys.stderr)
        sys.exit(1)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(prog="server.py", allow_abbrev=False)
    add = parser.add_argument
    add("-m", "--model", type=Path, help=f"folder with a {CONFIGURATION}", metavar="FOLDER")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=whole(0, 65535), default=8080, help="0 takes a free one")
    add("--ctx-size", type=whole(0), default=0, help="tokens of prompt and answer together")
    add("--alias", default="", help="name of the model")
    add("-t", "--threads", type=whole(0), default=0, help="threads that compute; 0 is automatic")
    add("--parallel", type=whole(1, 64), default=2, help="answers made at the same time")
    add("--verbose", action="store_true", help="log every request")
    add("--version", action="store_true", help="print the library's version and exit")
    return parser.parse_args(arguments)


def whole(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    """What argparse calls to read a whole number between two bounds."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least} and {most}")
        return number

    return read


def die_with_parent() -> None:
    """Have the kernel kill us when the parent ends; end now if it has ended meanwhile.

    Unless the parent says that we are to outlive it.
    """
    if os.environ.get("LEMONADE_OUTLIVE_SERVER") == "1":
        return
    parent = os.getppid()
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def check_folder(folder: Path | None) -> str:
    """What is wrong with the model's folder; empty if nothing is."""
    if folder is None:
        return "--model is required"
    if (folder / CONFIGURATION).is_file():
        return ""
    if not folder.is_dir():
        return f"--model: {folder} is no folder"
    inside = sorted(found.parent for found in folder.glob(f"**/{CONFIGURATION}"))
    hint = f"; {inside[0]} has" if inside else ""
    return f"--model: {folder} has no {CONFIGURATION}{hint}"


def threads_of(options: argparse.Namespace) -> int:
    """How many threads compute: as told, as the environment has it, or 0 for the library's own."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return options.threads or (int(wanted) if wanted.isascii() and wanted.isdigit() else 0)


async def serve(options: argparse.Namespace) -> int:
    """Serve until a signal; returns only if the model cannot be loaded or the port is taken."""
    loop, settled = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, os._exit, 0)  # open streams are not waited for
    folder: Path = options.model
    engine = Engine(
        Options(folder, options.ctx_size, threads_of(options), options.parallel),
        lambda: loop.call_soon_threadsafe(settled.set),
    )
    name = options.alias or folder.name
    key = os.environ.get(KEY, "")
    service = Service(engine, name, key, named=bool(options.alias), verbose=options.verbose)
    try:
        server, port = await Listener(service.handle).listen(options.host, options.port)
    except OSError as error:
        return fail(f"{options.host}:{options.port} cannot be listened on: {error}")
    say(f"listening on http://{options.host}:{port}, loading {folder}")
    engine.start()
    await settled.wait()
    if engine.failure:
        return fail(f"the model cannot be loaded: {engine.failure}")
    say(f"serving on http://{options.host}:{port} with {engine.context} tokens of context")
    await server.serve_forever()
    return 0


def say(line: str) -> None:
    """Log a line."""
    print(line, file=sys.stderr, flush=True)


def fail(message: str) -> int:
    """Say why, in one line; the exit status."""
    say("error: " + " ".join(message.split()))
    return 1


def main(arguments: Sequence[str]) -> int:
    """Serve, or say why not."""
    die_with_parent()
    options = parse(arguments)
    try:
        if options.version:
            load()
            print(f"onnxruntime-genai {version()}")
            return 0
    except Failed as error:
        return fail(str(error))
    if problem := check_folder(options.model):
        return fail(problem)
    options.model = options.model.absolute()
    return asyncio.run(serve(options))


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)  # the library's own end may crash while its thread runs
