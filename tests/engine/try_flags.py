"""A program for the engine's own Python: tries every row of `flags.toml` on the installed wheel.

Prints a JSON list of what went wrong. Arguments: the overlay's folder.
"""

from __future__ import annotations

import json
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

overlay = Path(sys.argv[1])
sys.path.append(str(overlay))
sys.dont_write_bytecode = True

import server  # type: ignore[import-not-found]  # noqa: E402
from flags import Params, members, read_table  # type: ignore[import-not-found]  # noqa: E402

OWN = {
    "--alias": (["a,b"], lambda p: p.model_alias == {"a", "b"}),
    "--tags": (["x,y"], lambda p: p.model_tags == {"x", "y"}),
    "--host": (["127.0.0.1,::1"], lambda p: p.hostnames == ["127.0.0.1", "::1"]),
    "--api-key": (["k1,k2"], lambda p: p.api_keys == ["k1", "k2"]),
    "--api-key-file": (["FILE"], lambda p: p.api_keys == ['root ::= "a"']),
    "--timeout": (["7"], lambda p: p.timeout_read == p.timeout_write == 7),
    "--cors-origins": (["localhost"], lambda p: p.cors_origins_explicit),
    "--reranking": ([], lambda p: p.embedding and p.pooling_type.name.endswith("RANK")),
    "--lora": (["/a,/b"], lambda p: [one.path for one in p.lora_adapters] == ["/a", "/b"]),
    "--lora-scaled": (["/a:0.5"], lambda p: p.lora_adapters[0].scale == 0.5),
    "--device": (["none"], lambda p: True),
    "--n-gpu-layers": (["all"], lambda p: p.n_gpu_layers == -2),
    "--n-gpu-layers-draft": (["3"], lambda p: p.speculative.draft.n_gpu_layers == 3),
    "--tensor-split": (["3,1"], lambda p: p.tensor_split[:3] == [3.0, 1.0, 0.0]),
    "--override-tensor": (["exps=CPU"], lambda p: p.tensor_buft_overrides == "exps=CPU"),
    "--cpu-moe": ([], lambda p: p.tensor_buft_overrides.endswith("=CPU")),
    "--n-cpu-moe": (["2"], lambda p: p.tensor_buft_overrides.count("=CPU") == 2),
    "--fit": (["off"], lambda p: p.fit_params is False),
    "--fit-target": (["512"], lambda p: set(p.fit_params_target) == {512 * 1024**2}),
    "--rope-scale": (["4"], lambda p: p.rope_freq_scale == 0.25),
    "--chat-template-file": (["FILE"], lambda p: p.chat_template.startswith("root")),
    "--chat-template-kwargs": (
        ['{"a": "b"}'],
        lambda p: p.default_template_kwargs == {"a": '"b"'},
    ),
    "--reasoning": (
        ["off"],
        lambda p: p.default_template_kwargs == {"enable_thinking": "false"},
    ),
    "--reasoning-effort": (
        ["low"],
        lambda p: p.default_template_kwargs == {"reasoning_effort": '"low"'},
    ),
    "--reasoning-preserve": (
        [],
        lambda p: p.default_template_kwargs == {"preserve_reasoning": "true"},
    ),
    "--seed": (["-1"], lambda p: p.sampling.seed == 2**32 - 1),
    "--samplers": (["top_k;temperature"], lambda p: p.sampling.samplers == "top_k;temperature"),
    "--grammar": (['root ::= "a"'], lambda p: "root" in repr(p.sampling.grammar)),
    "--grammar-file": (["FILE"], lambda p: "root" in repr(p.sampling.grammar)),
    "--spec-type": (["ngram-mod"], lambda p: p.speculative.types[-1].name.endswith("NGRAM_MOD")),
    "--verbose": ([], lambda p: p.verbosity > 1000),
}


def value_at(params: Params, path: str) -> Any:
    for name in path.split("."):
        params = getattr(params, name)
    return params


def samples(kind: str, row: dict[str, Any]) -> list[tuple[str, Any]]:
    """Texts to give, and what the field must be then."""
    if kind == "whole":
        numbers = {row.get("least", 1), row.get("most", 1), max(1, row.get("least", 1))}
        return [(str(number), number) for number in sorted(numbers)]
    if kind == "real":
        return [("0.5", 0.5)]
    if kind == "text":
        return [("some text", "some text")]
    return list(members(row["enum"], row["words"]).items())


def attempts(kind: str, spellings: str, row: dict[str, Any]) -> list[tuple[list[str], Any]]:
    names, _, negations = spellings.partition("|")
    tries: list[tuple[list[str], Any]] = []
    if kind == "own":
        own = next(OWN[name] for name in names.split() if name in OWN)
        values, check = own
        values = [str(example) if value == "FILE" else value for value in values]
        return [([name, *values], check) for name in names.split()]
    if kind == "switch":
        for on, group in ((True, names), (False, negations)):
            tries += [
                ([name], lambda p, on=on: value_at(p, row["field"]) is on)
                for name in group.split()
            ]
        return tries
    for text, expected in samples(kind, row):
        for name in names.split():
            words = [name, text] if not name.startswith("--") else [f"{name}={text}"]
            tries.append((words, lambda p, e=expected: value_at(p, row["field"]) == e))
    return tries


problems = []
tried = []
with tempfile.TemporaryDirectory() as folder:
    example = Path(folder) / "example"
    example.write_text('root ::= "a"\n')
    flags, reasons = read_table()
    table = tomllib.loads((overlay / "flags.toml").read_text())
    table.pop("impossible")
    for kind, rows in table.items():
        for spellings, row in rows.items():
            for words, check in attempts(kind, spellings, row):
                tried.append(" ".join(words))
                try:
                    params = server.parse(words, flags, reasons)
                    if not check(params):
                        problems.append(f"{words}: the field did not take it")
                except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
                    problems.append(f"{words}: {error!r}")
known = {name for flag in flags for name in (*flag.names, *flag.negations)}
problems += [f"{name} is accepted and refused" for name in known & set(reasons)]
spellings = [name for flag in flags for name in (*flag.names, *flag.negations)]
problems += [f"{name} is there twice" for name in known if spellings.count(name) > 1]
print(json.dumps({"tried": tried, "problems": problems, "known": sorted(known | set(reasons))}))
