"""`predict` and `tune` on the workers of Spark."""
