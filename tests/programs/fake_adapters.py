"""The fake engine with adapters, in both ways: given at the start and chosen by scales, or told
as it runs and chosen by name. Its first word says which of them are applied.

    python fake_adapters.py --port 8123 --lora a.gguf --lora b.gguf
    python fake_adapters.py --port 8123 --enable-lora --max-lora-rank 16

It does not take a folder that has a file named `refuse`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "lemonade" / "selftest"))

import fake_engine  # alone, as the program it is

TOLD: dict[str, str] = {}


def options_from(argv: list[str]) -> argparse.Namespace:
    own = argparse.ArgumentParser("fake_adapters", allow_abbrev=False)
    own.add_argument("--lora", action="append", default=[], metavar="FILE")
    own.add_argument("--lora-init-without-apply", action="store_true")
    own.add_argument("--enable-lora", action="store_true")
    own.add_argument("--max-lora-rank", type=int, default=16)
    mine, rest = own.parse_known_args(argv)
    return argparse.Namespace(**vars(fake_engine.options_from(rest)), **vars(mine))


class Connection(fake_engine.Connection):
    """Answers with adapters."""

    def serve(self, method: str, path: str, body: bytes) -> None:
        if path.endswith("load_lora_adapter") and self.engine.options.enable_lora:
            self.adapter(json.loads(body), load=path == "/v1/load_lora_adapter")
            return
        if path.endswith("completions"):  # decided when it comes, whatever is forgotten later
            self.prefix = self.applied(json.loads(body))
        super().serve(method, path, body)

    def adapter(self, request: dict[str, str], *, load: bool) -> None:
        name = request["lora_name"]
        if load and (Path(request["lora_path"]) / "refuse").exists():
            self.error(400, "LoRA rank 64 is greater than max_lora_rank", "BadRequestError")
            return
        if load == (name in TOLD):
            self.error(400, f"The lora adapter '{name}' is wrong.", "NotFoundError")
            return
        if load:
            TOLD[name] = request["lora_path"]
        else:
            del TOLD[name]
        fake_engine.say(f"{'took' if load else 'forgot'} {name}")
        self.send(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nSuccess")

    def word(self, request: dict[str, object], number: int) -> str:
        return super().word(request, number) if number else f"{self.prefix}word0 "

    def applied(self, request: dict[str, object]) -> str:
        chosen = request.get("lora")
        if isinstance(chosen, list):
            files = self.engine.options.lora
            names = [(Path(files[one["id"]]).name, one["scale"]) for one in chosen]
            return "".join(f"{name}*{scale:g} " for name, scale in names if scale)
        name = str(request.get("model"))
        return f"{Path(TOLD[name]).name} " if name in TOLD else ""


if __name__ == "__main__":
    fake_engine.main(sys.argv[1:], options_from, Connection)
