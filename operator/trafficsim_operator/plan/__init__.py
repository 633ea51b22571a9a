"""Plans: one rule per file, values in, values out. No client, clock, random, environment, logger or await in here."""
