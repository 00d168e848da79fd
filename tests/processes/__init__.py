"""The supervisor and its reaper against real children."""
