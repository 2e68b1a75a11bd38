"""The services of `stockray.v1`, written against the handler table and `Lines`."""
