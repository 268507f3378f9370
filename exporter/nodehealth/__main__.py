"""`python -m nodehealth` is the command `nodehealth`."""

import signal

signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a reload that comes before anything is loaded is no reason to die

from nodehealth.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
