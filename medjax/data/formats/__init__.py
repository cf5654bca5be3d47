"""File formats, a module each: its suffixes, how it is read, how it is written."""
