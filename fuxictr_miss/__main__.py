"""`python -m fuxictr_miss <command>`."""

from fuxictr_miss.commands.main import main

if __name__ == "__main__":
    main()
