"""Folders that the settings name."""

from __future__ import annotations

from pathlib import Path

from lemonade.config import Settings, extra_models


def test_none_is_none():
    assert extra_models(Settings()) is None


def test_a_folder():
    assert extra_models(Settings(extra_models_dir="/models")) == Path("/models")


def test_home():
    assert extra_models(Settings(extra_models_dir="~/models")) == Path.home() / "models"
