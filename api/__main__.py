"""`python -m pcmc` is the `pcmc` command."""

from pcmc.cli import main

main()
