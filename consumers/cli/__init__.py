"""The commands of the consumers; nothing imports it but `consumers.__main__`.

`run` starts services; the others are for people.
"""
