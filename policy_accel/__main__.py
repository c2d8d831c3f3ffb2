"""`python -m policy_accel` is `policy-accel`."""

import os
import sys

from policy_accel.cli import main
from policy_accel.launched import processes

if __name__ == "__main__":
    status = main()
    if status and processes() > 1:  # Python's end would let go of NCCL, which may wait for ranks that do not come
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
