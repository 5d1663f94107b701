"""The server on many GPUs and machines, and whole data sets, by Ray. Needs the extra ``[ray]``."""
