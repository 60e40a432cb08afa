"""Level 1: the steps as a pipeline (dvc.yaml), and a gate before the champion."""
