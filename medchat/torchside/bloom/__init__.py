"""What Bloom and the models made from it share: vocabulary, configuration, loading, miniatures.

Plugins for this architecture build on it; it knows no template and no published adapter.
"""
