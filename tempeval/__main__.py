"""`python -m tempeval`."""

from tempeval.cli import main

if __name__ == "__main__":  # decoding workers import this module again
    main()
