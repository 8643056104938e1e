"""`python -m llmgateway`."""

import sys

from llmgateway.cli import main

sys.exit(main())
