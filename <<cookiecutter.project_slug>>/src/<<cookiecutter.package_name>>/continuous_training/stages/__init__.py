"""The stages of dvc.yaml: pure functions of files."""
