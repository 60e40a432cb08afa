"""What a request passes through: schema, routing, features, scoring, prediction log."""
