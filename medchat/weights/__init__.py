"""Published weights: what is known of them, where they lie here, fetching them, checking them.

`catalogue` gathers what the plugins state, `folders` turns names into folders, `pulling` downloads (with
`hub`, `modelscope`, `selection`, `fetching`), `verifying` re-hashes, `record` remembers what was fetched.
Knows no model family and no terminal. Nothing here touches the network but `pulling` and its sources, and
they are imported by `medchat models pull` alone.
"""
