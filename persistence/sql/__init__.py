"""The SQL view of the journal: tables, the sink that fills them, the queries that read them."""
