"""`python -m appliance`, and the console script: runs the command line."""

from __future__ import annotations

from appliance.cli import main

if __name__ == "__main__":
    main()
