"""Client library of stockray."""
