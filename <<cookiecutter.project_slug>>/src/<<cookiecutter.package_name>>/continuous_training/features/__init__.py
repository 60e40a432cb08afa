"""The feature store: the views of feature_views.py, offline and online."""
