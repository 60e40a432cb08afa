"""When to retrain, and whether the challenger becomes the champion."""
