"""A trained run compared with its references on a part of the data: numbers, statistics, what is written."""
