"""What goes wrong in a lab, said so that a person can act on it."""


class LabError(Exception):
    """One clear sentence for the operator: what, which lab or node, and what to do next."""
