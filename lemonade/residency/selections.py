"""What the operator's settings make of each backend: the one place that joins the two.

Settings change while the server runs, so nothing is kept here but where to look.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from lemonade.catalog import BackendSpec, Catalog
from lemonade.config import Configuration, pin_key
from lemonade.core.bundle import Bundle
from lemonade.core.errors import UnsupportedHere
from lemonade.hardware import Machine
from lemonade.installer import BackendStatus, Bundles
from lemonade.planning import LATEST, Selection, on_channel, select


class Selections:
    """Selects the build of a backend as the settings are now. Made by the composition root."""

    def __init__(
        self,
        catalog: Catalog,
        configuration: Configuration,
        machine: Machine,
        bundles: Bundles,
        *,
        latest: Callable[[BackendSpec], str] = lambda _: "",
    ) -> None:
        """`latest` is the newest release of a backend, as far as it is known without asking."""
        self._catalog = catalog
        self._configuration = configuration
        self._machine = machine
        self._bundles = bundles
        self._latest = latest

    def of(
        self, backend: BackendSpec, version: str = "", *, machine: Machine | None = None
    ) -> Selection:
        """What is wanted of it; `version` names a release for this once.

        `machine` is another one that it is wanted for.

        Raises:
            UnsupportedHere: it cannot be had like that.
        """
        wanted = self._select(backend, version, machine)
        if version and self._wants(backend, wanted.version, machine):
            return replace(wanted, named=False)
        return wanted

    def described(self, backend: BackendSpec) -> BackendSpec:
        """The descriptor as it reads on the operator's channel."""
        return on_channel(backend, self._channel(backend))

    def wanted(self, backend: BackendSpec) -> BackendSpec:
        """The descriptor as it reads on that channel and with the operator's version."""
        with suppress(UnsupportedHere):
            return self.of(backend).spec
        return self.described(backend)

    def pin(self, backend: BackendSpec) -> str:
        """What the operator set for it: `builtin`, `latest`, a release or a path."""
        section = self._catalog.recipe(backend.backend_id.recipe).section
        return self._configuration.binary_pin(section, backend.backend_id.variant)

    def setting(self, backend: BackendSpec) -> str:
        """The key of that setting."""
        section = self._catalog.recipe(backend.backend_id.recipe).section
        return f"{section}.{pin_key(backend.backend_id.variant)}"

    def active(self, backend: BackendSpec) -> Bundle | None:
        """What a child of it would be started from now.

        Raises:
            UnsupportedHere: its pin names something that cannot be used.
        """
        return self._bundles.active(self.of(backend))

    def status(self, backend: BackendSpec) -> BackendStatus:
        """Its state on this machine. A bad pin is a state, too."""
        try:
            return self._bundles.status(self.of(backend), self._machine)
        except UnsupportedHere as error:
            present = bool(self._bundles.present(backend))
            return BackendStatus("unsupported", str(error), "", "", present)

    def _wants(self, backend: BackendSpec, version: str, machine: Machine | None) -> bool:
        """Whether it is what the settings say anyway."""
        with suppress(UnsupportedHere):
            return self._select(backend, "", machine).version == version
        return False

    def _select(self, backend: BackendSpec, version: str, machine: Machine | None) -> Selection:
        pin = self.pin(backend)
        selection = select(
            backend,
            machine or self._machine,
            pin=pin,
            channel=self._channel(backend),
            version=version,
            latest=self._latest(self.described(backend)) if pin == LATEST else "",
        )
        method = self._configuration.settings.rocm_install_method
        return replace(selection, runtime_method=method)

    def _channel(self, backend: BackendSpec) -> str:
        key = backend.channel_setting
        return str(getattr(self._configuration.settings, key, "")) if key else ""
