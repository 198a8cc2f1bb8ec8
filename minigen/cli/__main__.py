"""python -m minigen.cli"""

import sys

from . import main

sys.exit(main())
