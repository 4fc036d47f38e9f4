"""`python -m tal_lib` is the command `tal`."""

from tal_lib.cli import main

raise SystemExit(main())
