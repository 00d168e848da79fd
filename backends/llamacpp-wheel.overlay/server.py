"""llama.cpp's HTTP server out of the xllamacpp wheel, with the command line of `llama-server`.

Started as `PYTHON -I server.py ARGS` in a private environment that holds nothing but the wheel, so
it imports the standard library, xllamacpp and its neighbour `flags.py` only. It takes the flags of
llama-server in all their spellings, so that a genuine executable can take its place; an unknown
flag, a value of the wrong type and a flag this engine cannot honour are errors on stderr with exit
status 1, never ignored. It dies with its parent, and at SIGTERM it ends at once whatever streams
are open.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import xllamacpp

sys.path.append(str(Path(__file__).parent))  # `-I` leaves the program's own folder out
sys.dont_write_bytecode = True  # that folder belongs to an installed package
from flags import Flag, Params, Refused, add_keys, read_table  # noqa: E402

AUTO_SLOTS = 4  # what llama-server takes when -np is not given, with one KV cache for all


def parse(arguments: Sequence[str], flags: Sequence[Flag], reasons: Mapping[str, str]) -> Params:
    """Read a command line as llama-server does; `--flag=value` is understood as well.

    Raises:
        Refused: with the line to print.
    """
    known = {name: (flag, True) for flag in flags for name in flag.names}
    known |= {name: (flag, False) for flag in flags for name in flag.negations}
    params = xllamacpp.CommonParams()
    params.n_parallel, params.port = -1, 8080
    rest = iter(arguments)
    for word in rest:
        name, equals, attached = word.partition("=") if word.startswith("--") else (word, "", "")
        name = name.replace("_", "-") if name.startswith("--") else name
        if name not in known:
            why = reasons.get(name)
            raise Refused(f"error: {name}: {why}" if why else f"error: invalid argument: {word}")
        flag, on = known[name]
        try:
            if not flag.value and equals:
                raise Refused("it takes no value")  # noqa: TRY301 - one place words the error
            flag.apply(params, attached if equals else next(rest) if flag.value else on)
        except StopIteration:
            raise Refused(f'error while handling argument "{name}": expected a value') from None
        except (Refused, TypeError, ValueError, OverflowError, AssertionError, OSError) as error:
            raise Refused(f'error while handling argument "{name}": {error}') from None
    return params


def complete(params: Params) -> Params:
    """Decide what llama-server decides after it has read everything.

    Raises:
        Refused: there is no model.
    """
    if not params.model.path:
        raise Refused("error: --model is required")
    if params.n_parallel < 1:
        params.n_parallel, params.kv_unified = AUTO_SLOTS, True
    if params.embedding and params.n_batch > params.n_ubatch:
        params.n_batch = params.n_ubatch  # all tokens of an input must be in one batch
    if params.kv_unified_per_slot and not params.n_ctx:
        params.n_ctx = params.n_parallel * params.kv_unified_per_slot
    if params.cpuparams_batch.n_threads < 0:
        params.cpuparams_batch.n_threads = params.cpuparams.n_threads
    if not params.api_keys:
        add_keys(params, os.environ.get("LLAMA_API_KEY", ""))
    return params


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


def serve(params: Params) -> NoReturn:
    """Load the model and serve until SIGTERM.

    The constructor holds the interpreter's lock until the model is loaded, so that a handler of
    ours would run too late: until then the signals keep their default action.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:  # llama.cpp has printed the reason
        sys.exit(f"error: {error}")
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)  # works whichever thread the kernel hands the signal to
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    print(f"serving on {server.listening_address}", file=sys.stderr, flush=True)
    os.read(woken, 1)
    os._exit(0)  # an orderly end would wait for open streams


def main(arguments: Sequence[str]) -> int:
    """Serve, or say why not."""
    die_with_parent()
    if "--version" in arguments:
        print(f"xllamacpp {xllamacpp.__version__}")
        return 0
    flags, reasons = read_table()
    if {"-h", "--help", "--usage"} & set(arguments):
        print(
            f"xllamacpp {xllamacpp.__version__}: llama.cpp's HTTP server\n\n  -h, --help, --usage"
        )
        print("  --version")
        for flag in flags:
            print(f"  {', '.join((*flag.names, *flag.negations))} {flag.value}".rstrip())
        return 0
    try:
        serve(complete(parse(arguments, flags, reasons)))
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
