"""Tests of lemonade.storage."""
