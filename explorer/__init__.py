"""Many points: experiments and sweeps from YAML, what they return, and its tables and figures."""
