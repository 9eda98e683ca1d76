"""Real servers for tests: fetched once, started once a run, gone with the run."""
