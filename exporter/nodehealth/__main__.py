"""`python -m nodehealth` is the command `nodehealth`."""

from nodehealth.cli import main

main()
