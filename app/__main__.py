"""`python -m app` is `dredcall`."""

import sys

from app.cli import main

sys.exit(main())
