"""Where records come from: one file per source, its fields are the config keys, `load()` gives the records."""
