"""`python -m trafficsim_operator`: the operator's process."""

import sys

from trafficsim_operator.main import main

sys.exit(main())
