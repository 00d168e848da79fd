"""Tests of lemonade.catalog."""
