"""The water line: a number of bits for every entry of a table, from one level."""
