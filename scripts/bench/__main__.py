"""python -m scripts.bench [NAME...]: `arbor bench`."""

from arbor.commands import main

if __name__ == "__main__":
    main("bench")
