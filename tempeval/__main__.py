"""`python -m tempeval`."""

from tempeval.cli import main

main()
