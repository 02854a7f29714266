"""What all of SMART and OAuth here rests on: scopes, keys, persons, token grants, events."""
