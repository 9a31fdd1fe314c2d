"""`arbor rank-siblings` under its documented name."""

from _checkout import main

if __name__ == "__main__":
    main("rank-siblings")
