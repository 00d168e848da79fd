"""The directory that a run lives in, and nobody else: cache, state, settings, models, and a mark.

Nothing of the user's is read: no setting, no model, no key. What passes from the environment is
what programs need to start, and where packages are had from if the embedded engine is wanted.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import lemonade
from lemonade.core.records import dataclass

FAKE_MODEL: Final = "selftest-fake"
_FAKE_ENGINE: Final = Path(__file__).with_name("fake_engine.py")

_PASSED_ON: Final = frozenset(
    {
        "LANG", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "PATH", "SSL_CERT_FILE", "TZ",
        "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
        "LEMONADE_PYPI_EXTRA_URL", "LEMONADE_PYPI_URL", "LEMONADE_WHEELS",
    }
)  # fmt: skip

_RECIPE: Final = """\
schema = 1
id = "selftest"
title = "Fake engine of the self-test"
section = "selftest"
modality = "Text generation"
modes = ["chat"]
files = "gguf"
selectable_backend = false

[upstream]
ready = "/health"
ready_within = "60s"
stall_timeout = "2s"
hang_timeout = "5s"
stop_grace = "500ms"
levels = [{ level = "error", pattern = "^error" }]

[upstream.operations]
chat = "/v1/chat/completions"

[argv]
always = [
  "--model", "{checkpoint.main}", "--alias", "{model}", "--host", "{host}", "--port", "{port}",
]
reserved = ["--model", "--host", "--port", "--alias"]

[[option]]
name = "selftest_args"
type = "argv"
default = ""
flag = "--selftest-args"
help = "Bad habits."
setting = "args"
"""

_BACKEND: Final = """\
schema = 1
id = "selftest:program"
title = "A program with bad habits"
preference = 1
devices = ["cpu"]

[pin]
source = "system"
executable = EXECUTABLE

[[runs_on]]
os = ["linux"]

[bundle]
argv = ["{executable}", "-S", PROGRAM]
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything of a run is.

    Made by `make`; what is in it is gone after `remove`.

    Attributes:
        root: the directory.
        mark: a random word in its name; see `lemonade.selftest.traces`.
    """

    root: Path
    mark: str

    @classmethod
    def make(cls) -> Place:
        """Make one among the temporary files.

        Raises:
            OSError: it cannot be made.
        """
        mark = f"lemonade-selftest-{secrets.token_hex(8)}"
        place = cls(Path(tempfile.mkdtemp(prefix=f"{mark}-")), mark)
        for name in ("home", "tmp", "config", "catalog/recipes", "catalog/backends"):
            (place.root / name).mkdir(parents=True)
        # What keeps the machine awake is a child, and no engine.
        settings = {"config_version": 2, "inhibit_suspend": False}
        (place.root / "config" / "config.json").write_text(json.dumps(settings))
        catalog = place.root / "catalog"
        (catalog / "recipes" / "selftest.toml").write_text(_RECIPE)
        backend = _BACKEND.replace("EXECUTABLE", json.dumps(sys.executable))
        backend = backend.replace("PROGRAM", json.dumps(str(_FAKE_ENGINE)))
        (catalog / "backends" / "selftest.toml").write_text(backend)
        file = catalog / "fake.gguf"
        file.write_bytes(b"GGUF" + bytes(64))
        model = {
            "checkpoint": str(file),
            "source": "local_path",
            "recipe": "selftest",
            "labels": ["chat"],
            "size": 0.001,
        }
        (catalog / "server_models.json").write_text(json.dumps({FAKE_MODEL: model}))
        return place

    @property
    def ledger(self) -> Path:
        """Where its servers record their children."""
        return self.root / "cache" / "state" / "children"

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """What a server in this place is given, of an environment and besides."""
        kept = {
            name: value
            for name, value in environ.items()
            if name in _PASSED_ON or name.startswith(("LC_", "PIP_"))
        }
        package = str(Path(lemonade.__file__).parents[1])
        return {
            **kept,
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "XDG_RUNTIME_DIR": str(self.root / "run"),
            "LEMONADE_CACHE_DIR": str(self.root / "cache"),
            "LEMONADE_CONFIG_DIR": str(self.root / "config"),
            "LEMONADE_CATALOG": str(self.root / "catalog"),
            "HF_HUB_CACHE": str(self.root / "hub"),
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": package,
            "PYTHONUNBUFFERED": "1",
        }

    def remove(self) -> None:
        """Delete the directory. It may be called when half of it is gone."""
        shutil.rmtree(self.root, ignore_errors=True)
