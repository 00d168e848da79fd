"""pip's words: what is shown of them, and which error they are."""

from __future__ import annotations

import pytest

from lemonade.core.errors import (
    ChecksumMismatch,
    DownloadFailed,
    InstallError,
    NoSpace,
    SetupFailed,
)
from lemonade.installer.pip_output import PipReader, explain


def test_a_download_is_followed() -> None:
    reader = PipReader(1, {})
    assert reader.read("Collecting tiny==1.0 (from -r requirements.txt (line 1))") is None
    begun = reader.read("  Downloading http://index/files/tiny%2Bcpu-1.0.whl#sha256=00 (33.8 MB)")
    assert begun is not None
    assert (begun.file, begun.file_index, begun.bytes_total) == ("fetch tiny+cpu-1.0.whl", 2, 0)
    half = reader.read("Progress 50 of 100")
    assert half is not None
    assert (half.file, half.percent, half.total_download_size) == (begun.file, 50, 100)
    install = reader.read("Installing collected packages: tiny")
    assert install is not None
    assert (install.file, install.file_index, install.total_files) == ("install", 3, 4)
    assert reader.read("Successfully installed tiny-1.0") is None


def test_a_file_that_is_here_already_is_complete_at_once() -> None:
    reader = PipReader(1, {"tiny-1.0.whl": 7})
    frame = reader.read("Processing /wheels/tiny-1.0.whl (from -r requirements.txt (line 1))")
    assert frame is not None
    assert (frame.bytes_downloaded, frame.bytes_total, frame.percent) == (7, 7, 100)


def test_every_file_is_one_of_several() -> None:
    reader = PipReader(2, {"here-1.0.whl": 30})
    lines = [
        "  Downloading http://index/one-1.0.whl.metadata (1 kB)",
        "  Downloading http://index/one-1.0.whl (70 B)",
        "Progress 20 of 70",
        "Progress 70 of 70",
        "Processing /wheels/here-1.0.whl",
    ]
    frames = [frame for line in lines if (frame := reader.read(line)) is not None]
    assert [(f.file, f.file_index, f.bytes_downloaded) for f in frames] == [
        ("fetch one-1.0.whl", 2, 0),
        ("fetch one-1.0.whl", 2, 20),
        ("fetch one-1.0.whl", 2, 70),
        ("fetch here-1.0.whl", 3, 30),
    ]
    assert [frame.total_download_size for frame in frames] == [0, 0, 0, 100], "once it is known"
    assert reader.read("Installing collected packages: one, here") == reader.step("install")
    steps = [reader.step(name) for name in ("create environment", "install", "check")]
    assert [(step.file_index, step.total_files) for step in steps] == [(1, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("OSError: [Errno 28] No space left on device", NoSpace),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
         ChecksumMismatch),
        ("... Failed to establish a new connection: [Errno 111] Connection refused'",
         DownloadFailed),
        ("Temporary failure in name resolution", DownloadFailed),
        ("ERROR: No matching distribution found for tiny==1.0", DownloadFailed),
        ("ERROR: something nobody has seen before", SetupFailed),
    ],
)  # fmt: skip
def test_last_lines_become_an_error(line: str, kind: type[InstallError]) -> None:
    error = explain("tiny:engine 1.0", ("Collecting tiny==1.0", line), 1)
    assert type(error) is kind
    assert "tiny:engine 1.0" in error.message
    assert error.remedy
    assert error.facts["last_lines"] == ["Collecting tiny==1.0", line]
