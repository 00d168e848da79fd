"""How far a download or an installation is; the shape of the progress protocol's frames."""

from __future__ import annotations

from collections.abc import Callable

from lemonade.core.records import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """One look at a transfer of one or more files.

    Attributes:
        file: name of the file under way; for an installation step that moves no bytes, its name.
        file_index: 1-based.
        total_files: how many there are.
        bytes_downloaded: of the current file.
        bytes_total: of the current file; 0 when unknown.
        total_download_size: of all files; 0 when unknown.
        bytes_previously_downloaded: of the current file, there before this operation began.
        complete: whether the whole operation is done.
        phase: what an engine that starts is doing; nothing is transferred then.
        phase_percent: how far that is; `None` if nobody says.
        message: what people should know of it, as a sentence; may be empty.
    """

    file: str
    file_index: int = 1
    total_files: int = 1
    bytes_downloaded: int = 0
    bytes_total: int = 0
    total_download_size: int = 0
    bytes_previously_downloaded: int = 0
    complete: bool = False
    phase: str = ""
    phase_percent: int | None = None
    message: str = ""

    @property
    def percent(self) -> int:
        """0 to 100, of the current file, or of the phase."""
        if self.complete:
            return 100
        if self.phase_percent is not None:
            return self.phase_percent
        if self.bytes_total <= 0:
            return 0
        return min(100, 100 * self.bytes_downloaded // self.bytes_total)

    def as_json(self) -> dict[str, object]:
        """The keys of a `progress` frame (`spec` of Lemonade 11.7: pull and install over SSE)."""
        frame: dict[str, object] = {
            "file": self.file,
            "file_index": self.file_index,
            "total_files": self.total_files,
            "bytes_downloaded": self.bytes_downloaded,
            "bytes_total": self.bytes_total,
            "total_download_size": self.total_download_size,
            "bytes_previously_downloaded": self.bytes_previously_downloaded,
            "percent": self.percent,
            **({"message": self.message} if self.message else {}),
        }
        if self.phase:
            frame |= {"phase": self.phase, "phase_percent": self.phase_percent}
        return frame


ProgressListener = Callable[[Progress], None]
"""Called on the event loop's thread unless the giver says otherwise; must be quick."""
