"""Level 2: releases through the environments, the prediction service, its monitoring."""
