"""Pictures that compare arms: settings, speed, layers and claims beside each other."""

import matplotlib  # noqa: F401
