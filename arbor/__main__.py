"""python -m arbor SUBCOMMAND ..."""

from arbor.commands import main

if __name__ == "__main__":
    main()
