"""Real servers for tests: fetched once, started once a run, ended with the run."""
