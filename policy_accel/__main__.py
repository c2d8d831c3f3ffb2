"""`python -m policy_accel` is `policy-accel`."""

import sys

from policy_accel.cli import main

if __name__ == "__main__":
    sys.exit(main())
