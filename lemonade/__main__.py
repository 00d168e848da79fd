"""`python -m lemonade`."""

from lemonade.cli.main import main

if __name__ == "__main__":
    main()
