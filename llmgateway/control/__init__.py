"""What people and operators do: keys, users, models, reports, audit."""
