"""The delivery floor: a release is built once and brought through the environments to production."""
