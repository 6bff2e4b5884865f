"""How good the tests are: branches that they have to run, and changes that they have to notice.

`make mutants` measures it; no other test depends on it.
"""
