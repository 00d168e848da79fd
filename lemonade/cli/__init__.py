"""Floor 8: the command line. It serves through `lemonade.app` and asks through `lemonade.client`.

Nothing here is imported before its command is invoked, so that `lemonade --help` stays fast.
"""
