"""Tests of lemonade.config."""
