"""Rows of users' files: from bytes to numbers.

source_files                          the door: regular files, unpacked, within memory
records, delimited, columnar, arrays  a format each, to a `Table` of named columns
folders, read                         which files one set of rows is, and which format
fields, column_kinds, measurements    what a column holds
rows                                  the `Rows` of a source: ids, text or vectors, groups
embed, reduce                         the rows of all sources as vectors and coordinates
stream, moments                       rows of numbers that need not fit in memory
"""
