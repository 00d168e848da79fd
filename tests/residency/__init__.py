"""The pool by itself, with engines that start, crash and end when a test says so."""
