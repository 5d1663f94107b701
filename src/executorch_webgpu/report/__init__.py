"""Reports as tables and as self-contained HTML: what a run did, and what a program is."""
