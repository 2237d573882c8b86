"""selftune: a safe self-tuning loop for the rule parameters of a running system."""

__version__ = "0.1.0"
