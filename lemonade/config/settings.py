"""`Settings`: everything an operator can decide, in one frozen object, each key with its meaning.

The descriptions are the documentation: the table in docs/configuration.md is made from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic.fields import FieldInfo

from lemonade.config.keys import AT_START, NOT_YET
from lemonade.config.keys import Group as _Keys
from lemonade.config.keys import setting as _key
from lemonade.config.limits import LimitSettings
from lemonade.config.policies import CrashSettings, HangSettings

CONFIG_VERSION: Final = 2
"""Of the layout of `config.json`."""

LOG_LEVELS: Final = ("trace", "debug", "info", "warning", "error", "fatal", "none")


def _trace_key(default: Any, meaning: str, **limits: Any) -> Any:  # noqa: ANN401
    """A setting of the traces, which this version does not make."""
    return _key(default, meaning, effect=NOT_YET, **limits)


def _websocket_port(value: object) -> object:
    if value == "auto":
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535:
        return value
    raise ValueError('it must be "auto" or a port from 0 to 65535')


def _header_names(value: object) -> object:
    names = [value] if isinstance(value, str) else value
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return names
    raise ValueError("it must be a string or a list of strings")


def _no_zero(value: int) -> int:
    if value == 0:
        raise ValueError("it must be -1 or at least 1")
    return value


class SessionHeaders(_Keys):
    """Which request headers name a session and a client in traces."""

    id: Annotated[list[str], BeforeValidator(_header_names)] = _trace_key(
        [], "Request headers that name the session, first match wins."
    )
    client: Annotated[list[str], BeforeValidator(_header_names)] = _trace_key(
        [], "Request headers that name the client, first match wins."
    )


class SessionSettings(_Keys):
    """How requests are grouped into sessions."""

    headers: SessionHeaders = SessionHeaders()


class OtlpSettings(_Keys):
    """Where traces are sent."""

    endpoint: str = _trace_key("http://localhost:4318/v1/traces", "URL of the collector.")
    protocol: Literal["http/protobuf", "http/json"] = _trace_key(
        "http/protobuf", "How spans are encoded."
    )
    semantics: list[Literal["openinference", "otel_genai"]] = _trace_key(
        ["openinference", "otel_genai"], "Naming conventions of the attributes."
    )
    headers: dict[str, str] = _trace_key({}, "Headers sent to the collector; replaced as a whole.")
    max_retries: int = _trace_key(0, "Further attempts when the collector does not answer.", ge=0)
    retry_backoff_base_s: float = _trace_key(
        5.0, "Seconds before the first further attempt.", ge=0
    )
    send_batch_size: int = _trace_key(100, "Spans per transmission.", ge=1)
    batch_timeout_s: float = _trace_key(1.0, "Seconds a span waits for company.", gt=0)


class TelemetrySettings(_Keys):
    """Traces of requests. Off unless switched on."""

    enabled: bool = _trace_key(False, "Whether spans are made.")  # noqa: FBT003
    hide_inputs: bool = _trace_key(False, "Whether prompts are left out.")  # noqa: FBT003
    hide_outputs: bool = _trace_key(False, "Whether answers are left out.")  # noqa: FBT003
    hide_thinking: bool = _trace_key(False, "Whether reasoning is left out.")  # noqa: FBT003
    trust_incoming_trace_context: bool = _trace_key(
        False,  # noqa: FBT003
        "Whether a client's `traceparent` is continued.",
    )
    max_queue_capacity: int = _trace_key(1000, "Spans kept while the collector is slow.", gt=0)
    max_attribute_length: int = _trace_key(4096, "Characters of an attribute that are kept.", gt=0)
    otlp: OtlpSettings = OtlpSettings()
    session: SessionSettings = SessionSettings()


class Settings(_Keys):
    """The settings in force. Replaced as a whole when one changes."""

    port: int = _key(
        13305,
        "TCP port of the server, 1 to 65535. On the command line 0 takes a free one.",
        effect=AT_START,
        ge=0,
        le=65535,
    )
    host: str = _key(
        "localhost",
        "Name or address to listen on; every address it resolves to. `0.0.0.0` is all of IPv4.",
        effect=AT_START,
        min_length=1,
    )
    websocket_port: Annotated[int | str, BeforeValidator(_websocket_port)] = _key(
        "auto", "TCP port for WebSockets; `auto` or 0 takes a free one.", effect=NOT_YET
    )
    workers: int = _key(
        0,
        "Processes beside the server that relay on the same port; 0 is none.",
        effect=AT_START,
        ge=0,
        le=64,
    )
    log_level: Literal["trace", "debug", "info", "warning", "error", "fatal", "none"] = _key(
        "info", "What is logged: this and everything graver.", effect=AT_START
    )
    log_format: Literal["text", "json"] = _key(
        "text",
        "How the server writes its own log: lines for people, or a JSON object a line.",
        effect=AT_START,
    )
    global_timeout: int = _key(
        600,
        "Seconds an engine may be silent before the request that waits for it fails.",
        gt=0,
    )
    on_exit: Literal["end", "keep"] = _key(
        "end",
        "What becomes of engines when the server ends or is killed: `end` them, or `keep` those "
        "that serve for the next server. It counts for engines started from then on.",
        effect="at the next load",
    )
    restart_drain_s: float = _key(
        30.0, "Seconds that answers may still take when the server restarts.", ge=0
    )
    heartbeat_after_s: float = _key(
        10.0,
        "Seconds a streaming request waits in silence before its stream begins with comments that "
        "say what it waits for; 0 is for ever.",
        ge=0,
    )
    heartbeat_every_s: float = _key(
        15.0, "Seconds between two such comments that say the same.", ge=0.1
    )
    max_loaded_models: Annotated[int, AfterValidator(_no_zero)] = _key(
        1, "Models of one type that stay loaded side by side; -1 is no limit.",
        effect="at the next load", ge=-1,
    )  # fmt: skip
    ctx_size: int = _key(
        -1, "Context size in tokens for models that do not say; -1 leaves it to the model.",
        effect="at the next load", ge=-1,
    )  # fmt: skip
    broadcast: bool = _key(
        True,  # noqa: FBT003
        "Whether the server announces itself on private networks.",
        effect=NOT_YET,
    )
    models_dir: str = _key(
        "auto",
        "Folder of downloaded models in the hub's cache layout; `auto` is the one that other "
        "tools of the hub use.",
        effect=AT_START,
    )
    extra_models_dir: str = _key(
        "", "Folder whose GGUF files are offered as `extra.NAME`; empty is none."
    )
    default_model_source: Literal["huggingface", "modelscope"] = _key(
        "huggingface", "Hub that models come from when nobody says.", effect="at the next pull"
    )
    offline: bool = _key(False, "Whether nothing may be fetched.")  # noqa: FBT003
    auto_check_model_updates: bool = _key(
        True,  # noqa: FBT003
        "Whether newer revisions of downloaded models are looked for.",
        effect=NOT_YET,
    )
    no_fetch_executables: bool = _key(False, "Whether engines may not be fetched or updated.")  # noqa: FBT003
    disable_model_filtering: bool = _key(
        False,  # noqa: FBT003
        "Whether models that this machine cannot run are listed too.",
    )
    enable_dgpu_gtt: bool = _key(
        False,  # noqa: FBT003
        "Whether system memory mapped by a discrete GPU counts as its own.",
        effect=NOT_YET,
    )
    inhibit_suspend: bool = _key(
        True,  # noqa: FBT003
        "Whether the machine is kept awake while requests run and models are loaded, where logind "
        "can do that.",
    )
    auto_evict: bool = _key(
        False,  # noqa: FBT003
        "Whether idle models are unloaded when memory is short.",
        effect=NOT_YET,
    )
    auto_evict_threshold_pct: float = _key(
        0.9,
        "Fraction of memory in use above which it is short, above 0 to 1.",
        effect=NOT_YET,
        gt=0,
        le=1,
    )
    rocm_channel: Literal["stable", "nightly"] = _key(
        "stable", "Which builds for ROCm are installed."
    )
    rocm_install_method: Literal["auto", "wheel", "tarball"] = _key(
        "auto",
        "How the ROCm runtime is installed; `auto` is `tarball`, and `wheel` is refused when it "
        "would be needed.",
    )
    config_version: int = _key(
        CONFIG_VERSION, "Of the file's layout; kept by Lemonade.", effect="-", ge=1
    )
    cloud_providers: list[dict[str, Any]] = _key(
        [], "Remote providers; kept by Lemonade, not to be set by hand.", effect="-"
    )
    crash: CrashSettings = CrashSettings()
    hang: HangSettings = HangSettings()
    limits: LimitSettings = LimitSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    sections: dict[str, dict[str, Any]] = Field(default_factory=dict, exclude=True)

    def section(self, name: str) -> Mapping[str, object]:
        """The settings of one recipe's section; empty if there is no such section."""
        return MappingProxyType(self.sections.get(name, {}))

    def document(self) -> dict[str, Any]:
        """Everything as the nested JSON document that clients see."""
        return {**self.model_dump(mode="json"), **{k: dict(v) for k, v in self.sections.items()}}


def group_of(group: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The group of settings that the key holds, or `None` if it holds a value."""
    annotation = group.model_fields[key].annotation
    kinds = (annotation, *get_args(annotation))
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)


def all_fields(
    group: type[BaseModel] = Settings, prefix: str = ""
) -> Iterator[tuple[str, FieldInfo]]:
    """Every setting by its dotted key, sections of recipes left out."""
    for key, field in group.model_fields.items():
        inner = group_of(group, key)
        if inner is not None:
            yield from all_fields(inner, f"{prefix}{key}.")
        elif not field.exclude:
            yield prefix + key, field


def effect_of(field: FieldInfo) -> str:
    """When a change of the setting is felt."""
    extra = field.json_schema_extra
    return str(extra.get("effect", "")) if isinstance(extra, dict) else ""


KEYS: Final = frozenset(Settings.model_fields) - {"sections"}
"""The keys of the document that are not sections of recipes."""

NOT_SETTABLE: Final = frozenset({"cloud_providers"})
"""Keys that may stand in the file, and that nobody sets through the API."""
