"""A child process that says which environment it was given, and ends."""

import json
import os
import sys

if __name__ == "__main__":
    json.dump(dict(os.environ), sys.stdout)
