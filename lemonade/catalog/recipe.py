"""`RecipeSpec`: one file of `recipes/`, how a kind of engine is run, whatever the variant."""

from __future__ import annotations

import re
import signal
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from lemonade.catalog.adapters_spec import AdaptersSpec
from lemonade.catalog.backend import Declared, SlotPolicy
from lemonade.catalog.launch_spec import ContextSpec, HelpSpec, RetrySpec
from lemonade.core.errors import BadSetting
from lemonade.core.inference import Operation
from lemonade.core.logs import LogLevel
from lemonade.core.units import parse_duration

Mode = Literal[
    "chat",
    "embeddings",
    "reranking",
    "transcription",
    "image",
    "tts",
    "audio-generation",
    "classification",
    "3d",
]


def _seconds(value: str | float) -> float:
    try:
        return parse_duration(value)
    except BadSetting as error:
        raise ValueError(str(error)) from error


def _expression(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"it is not a regular expression ({error})") from error
    return value


class PhaseSpec(Declared):
    """What an engine prints when its start comes to a phase.

    Attributes:
        name: one word for people: `weights`, `compile`, `warm-up`.
        pattern: a regular expression searched in each line. Its groups `percent`, or `done` and
            `total`, say how far the phase is.
    """

    name: str
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        return _expression(value)


class LevelSpec(Declared):
    """How lines of a level look, in the log of an engine of this kind.

    Attributes:
        pattern: a regular expression searched in the first 400 characters of a line.
    """

    level: LogLevel
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        return _expression(value)


class ProblemSpec(Declared):
    """Something engines of this kind die of, and what they print then.

    Attributes:
        pattern: a regular expression searched in the last 200 lines, several at once; `^` and `$`
            are those of a line. Empty if the output does not tell.
        signal: name of the signal that ended it; empty if that does not tell.
        kernel: a regular expression searched in what the kernel's log said of memory, of GPUs and
            of the engine's processes while it lived, several lines at once; empty if that does not
            tell. Where there is a `pattern` too, either is enough.
        name: a word for programs, as `device-fault`; empty if there is none.
        cause: a sentence that says what is wrong; `{name}` is the pattern's group of that name.
        fix: a sentence that says what to do; likewise.
        severe: whether trying again at once may do harm: a device has faulted.
    """

    pattern: str = ""
    signal: str = ""
    kernel: str = ""
    name: str = Field(default="", pattern=r"^[a-z-]*$")
    cause: str
    fix: str
    severe: bool = False

    @field_validator("pattern", "kernel")
    @classmethod
    def _compiles(cls, value: str) -> str:
        return _expression(value)

    @field_validator("signal")
    @classmethod
    def _is_a_signal(cls, value: str) -> str:
        if value and value not in signal.Signals.__members__:
            raise ValueError(f"'{value}' is not the name of a signal, as in SIGILL")
        return value

    @model_validator(mode="after")
    def _can_be_recognised(self) -> Self:
        if not (self.pattern or self.signal or self.kernel):
            raise ValueError("it needs a 'pattern', a 'signal' or a 'kernel'")
        return self


class LimitsSpec(Declared):
    """How a request's limit on new tokens is brought below what the context leaves.

    For an engine that refuses a request whose prompt and limit together exceed it.

    Attributes:
        count: path that counts the tokens of a prompt.
        context: path of the list of models, which says how long the context is.
        above: limits up to this, or up to the context if that is shorter, are not looked into.
    """

    count: str
    context: str
    above: int = Field(default=8192, gt=0)


class UpstreamSpec(Declared):
    """How a child of this recipe is spoken to.

    Attributes:
        ready: path that answers 200 when the child may be used.
        ready_within: limit of a start, seconds, however hard it works.
        stall_timeout: how long a start may show no sign of work, seconds; and an engine that
            somebody waits for, before it is asked for a token.
        hang_timeout: how long an engine with requests may fail its probes, send nothing and
            compute nothing, seconds; 0 is without limit.
        dead_status: HTTP status of `ready` by which an engine that was ready says that it has
            lost the process that computes; 0 if it never says so.
        phases: how its output tells where a start is; the first that fits a line counts.
        levels: how a line of its output tells how grave it is; the first that fits counts, and
            without one it is `info`.
        stop_grace: between SIGTERM and SIGKILL, seconds.
        on_parent_death: signal a child gets when we die.
        api_key_env: variable through which the child is given its own random key; empty if the
            engine knows no keys.
        metrics: path of its Prometheus text; empty if it has none.
        progress: counters on that page that rise while an engine works. One whose counters rise
            does not hang.
        metrics_names: under which names its metrics are told: `ours` (with our prefix) or `own`.
        operations: the child's path for each operation it serves.
        retry: what it prints when a start may be tried again with a smaller context.
        limits: how limits on new tokens are made to fit; `None` if the engine does it.
        old_limit: whether it knows only `max_tokens`, so that a request with nothing but
            `max_completion_tokens` has to say it twice.
        own_name: whether it refuses requests that call the model by another name than it does.
        usage: where statistics are found in answers: `openai` reads `usage`; `on-request` is the
            same for an engine that ends a stream with it only where
            `stream_options.include_usage` asks for it; `llama-timings` prefers llama.cpp's
            `timings`.
    """

    ready: str
    ready_within: float = 3600.0
    stall_timeout: float = 120.0
    hang_timeout: float = 300.0
    dead_status: int = 0
    phases: tuple[PhaseSpec, ...] = ()
    levels: tuple[LevelSpec, ...] = ()
    stop_grace: float = 5.0
    on_parent_death: Literal["TERM", "KILL"] = "KILL"
    api_key_env: str = ""
    metrics: str = ""
    progress: tuple[str, ...] = ()
    metrics_names: Literal["ours", "own"] = "ours"
    operations: dict[Operation, str]
    retry: tuple[RetrySpec, ...] = ()
    limits: LimitsSpec | None = None
    old_limit: bool = False
    own_name: bool = False
    usage: Literal["openai", "on-request", "llama-timings"] = "openai"

    @property
    def adapts(self) -> bool:
        """Whether requests may have to be changed before this engine gets them."""
        return (
            self.usage == "on-request"
            or self.own_name
            or self.old_limit
            or self.limits is not None
        )

    @field_validator("ready_within", "stall_timeout", "hang_timeout", "stop_grace", mode="before")
    @classmethod
    def _durations(cls, value: str | float) -> float:
        return _seconds(value)


class ArgvSpec(Declared):
    """The command line. Placeholders are checked when the file is read.

    Placeholders: `{host}`, `{port}`, `{model}` (the served name), `{ctx_size}`, `{device}`, and
    `{checkpoint.ROLE}` (absolute path of that role's first file).

    Attributes:
        always: arguments every child gets.
        defaults: arguments every child gets unless users say otherwise: they may repeat or negate
            them, and are told what that means.
        context: added when a context size was chosen (an option above 0).
        device: added when a device was chosen.
        for_mode: added by the model's mode.
        for_checkpoint: added when the model has a checkpoint of that role.
        reserved: flags that users may not give, with the reason shown to them implied:
            Lemonade manages them.
        apart: flags that look like the negation of another, and are something else.
        synonyms: spellings of one flag; the first is the one shown.
        valueless: flags that take no value.
        repeatable: flags that add up instead of replacing each other.
        repeats_add_up: whether any flag adds up over the layers that one layer repeats, for an
            engine that nobody has a complete list of repeatable flags of.
        conflicts: flags of one group replace each other, as if they were one.
        speculative: flag that is given a family's `speculative_config`; empty if there is none.
        order: the flags that come first, in this order, where Lemonade gives them.
        abbreviates: whether the engine takes the beginning of a flag for the flag.
        files: flags that name a file which has to be there; several have commas between them.
        joined_values: whether it understands `--flag=value`. One that does not takes the next word
            for the value, whatever that looks like.
    """

    always: tuple[str, ...]
    context: tuple[str, ...] = ()
    device: tuple[str, ...] = ()
    for_mode: dict[Mode, tuple[str, ...]] = Field(default_factory=dict)
    for_checkpoint: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    reserved: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    synonyms: tuple[tuple[str, ...], ...] = ()
    valueless: tuple[str, ...] = ()
    repeatable: tuple[str, ...] = ()
    defaults: tuple[str, ...] = ()
    repeats_add_up: bool = False
    conflicts: tuple[tuple[str, ...], ...] = ()
    speculative: str = ""
    order: tuple[str, ...] = ()
    abbreviates: bool = False
    files: tuple[str, ...] = ()
    joined_values: bool = True


class OptionSpec(Declared):
    """A load option that clients may send, save and read back.

    Attributes:
        name: the JSON key (`llamacpp_args`).
        type: `argv` is a string of arguments (or a list of strings); `backend` a variant's name.
        default: when nobody says anything.
        flag: the CLI's flag.
        help: one sentence.
        group: heading in `--help`.
        setting: key in the recipe's configuration section that gives a machine-wide value.
    """

    name: str
    type: Literal["int", "float", "bool", "string", "argv", "backend"]
    default: int | float | bool | str | None
    flag: str = ""
    help: str
    group: str = "General Options"
    setting: str = ""


class CanarySpec(Declared):
    """What a newly installed engine is asked before it is used: to answer with a shipped model.

    Attributes:
        model: a file or folder of `models/`; it takes the place of the first checkpoint.
        mode: what the model is.
        operation: what is asked; one token, or one vector, is enough.
        options: as a load request would give them.
        answers_within: limit for the answer once it is ready, seconds.
    """

    model: str
    mode: Mode = "chat"
    operation: Literal["chat", "completion", "embeddings"] = "chat"
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    answers_within: float = 120.0

    @field_validator("answers_within", mode="before")
    @classmethod
    def _duration(cls, value: str | float) -> float:
        return _seconds(value)


class RulesSpec(Declared):
    """Named pure functions of `lemonade/planning/rules/`, applied in this order."""

    launch: tuple[str, ...] = ()


class RecipeSpec(Declared):
    """One recipe.

    Attributes:
        schema_version: of this file format (`schema` in the file).
        id: the recipe's name.
        title: for people.
        section: its section in `config.json`.
        order: position in listings.
        modality: for people: what the models make.
        modes: what its models may be; the first is the default.
        checkpoints: roles its models' files have; the first is required.
        files: how a checkpoint's variant selects files: `gguf` by quantisation name, file or
            folder; `repository` takes everything.
        repo_kind: what kind of repository on a hub it is offered for, where nobody named a recipe;
            empty for none.
        slots: how its residents share the machine; a backend may say otherwise.
        families: a registry of arguments by family; empty if none.
        problem: what its engines are known to die of; the first that fits counts.
        context: how the context is planned; `None` leaves to the engine what nobody chose.
        help: how an engine is asked which flags it knows; `None` if it cannot be asked.
        canary: what an installed engine must do before it is used; `None` if nothing can be asked.
        adapters: how adapters (LoRA) are put upon its models; `None` if they cannot be.
        settings: keys of its section in `config.json` and their defaults, whose types are the
            keys' types.
        environment: variables set for every child. `{compile_cache}` is a folder for what one
            version of one backend compiles.
        selectable_backend: whether clients may choose the variant.
        experimental: shown to clients.
        runs: whether this version runs the engine. What it cannot run yet may be declared all the
            same, without `upstream` and `argv`: then its backends can be installed.
    """

    schema_version: Literal[1] = Field(alias="schema")
    id: str
    title: str
    section: str
    order: int = 100
    modality: str
    modes: tuple[Mode, ...]
    checkpoints: tuple[str, ...] = ("main",)
    files: Literal["gguf", "repository"]
    repo_kind: str = ""
    slots: SlotPolicy = "standard"
    families: str = ""
    selectable_backend: bool = True
    experimental: bool = False
    runs: bool = True
    upstream: UpstreamSpec = UpstreamSpec(ready="", operations={})
    argv: ArgvSpec = ArgvSpec(always=())
    option: tuple[OptionSpec, ...] = ()
    problem: tuple[ProblemSpec, ...] = ()
    rules: RulesSpec = RulesSpec()
    context: ContextSpec | None = None
    help: HelpSpec | None = None
    canary: CanarySpec | None = None
    adapters: AdaptersSpec | None = None
    settings: dict[str, bool | int | float | str] = Field(default_factory=dict)
    environment: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _what_runs_says_how(self) -> Self:
        for key in ("upstream", "argv"):
            if self.runs and key not in self.model_fields_set:
                raise ValueError(
                    f"[{key}] is missing, which says how it is run; or 'runs = false'"
                )
            if not self.runs and key in self.model_fields_set:
                raise ValueError(f"[{key}] says how it is run, and 'runs' says that it is not")
        return self

    @property
    def uses_ctx_size(self) -> bool:
        """Whether a context size means something to it."""
        return any(option.name == "ctx_size" for option in self.option)

    @property
    def backend_option(self) -> str | None:
        """The option that selects the variant, e.g. `llamacpp_backend`."""
        return next((o.name for o in self.option if o.type == "backend"), None)
