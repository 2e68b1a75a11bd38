"""`python -m stockray.cli` is `stockray`."""

from stockray.cli import main

main()
