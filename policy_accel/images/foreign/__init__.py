"""Image models of other libraries, read and written as files of theirs."""
